#!/usr/bin/env bash
# Runs a command of diga_jax on a TPU pod slice: makes the slice or takes the one of that name,
# installs on every worker, runs, shows the log of worker 0, and after a pre-emption starts over, which
# goes on from the last checkpoint.
#
#   NAME=diga ZONE=us-central2-b TYPE=v4-32 MOUNTS='my-runs:/runs my-data:/data' \
#     bash launch/tpu_pod.sh run --config=configs/gta5_to_cityscapes.py --workdir=/runs/gta5 \
#     --config.data.root=/data
#
# Settings: NAME, ZONE and TYPE as above; MOUNTS, buckets and the folders where every worker sees them
# (gcsfuse); VERSION (runtime, default tpu-ubuntu2204-base); SPOT=1 for a pre-emptible slice; PROJECT;
# ATTEMPTS (default 100); KEEP=1 leaves the slice there at the end. DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
if [ $# -eq 0 ] || [ -z "${NAME:-}" ] || [ -z "${ZONE:-}" ] || [ -z "${TYPE:-}" ]; then
  usage
fi
where=("$NAME" "--zone=$ZONE")
if [ -n "${PROJECT:-}" ]; then
  where+=("--project=$PROJECT")
fi

do_or_print() {
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_workers() { # WORKER COMMAND
  do_or_print gcloud compute tpus tpu-vm ssh "${where[@]}" "--worker=$1" "--command=$2"
}

state() {
  if [ -n "${DRY_RUN:-}" ]; then
    echo "${DRY_STATE:-NONE}"
  else
    gcloud compute tpus tpu-vm describe "${where[@]}" '--format=value(state)' 2>/dev/null || echo NONE
  fi
}

create() {
  local options=("--accelerator-type=$TYPE" "--version=${VERSION:-tpu-ubuntu2204-base}")
  if [ -n "${SPOT:-}" ]; then
    options+=(--spot)
  fi
  do_or_print gcloud compute tpus tpu-vm create "${where[@]}" "${options[@]}"
}

delete() {
  do_or_print gcloud compute tpus tpu-vm delete "${where[@]}" --quiet
}

install() {
  local archive
  archive="$(mktemp -d)/diga_jax.tar.gz"
  do_or_print git archive --format=tar.gz --prefix=diga_jax/ -o "$archive" HEAD
  do_or_print gcloud compute tpus tpu-vm scp "$archive" "$NAME:" "${where[@]:1}" --worker=all
  local command='tar xzf diga_jax.tar.gz && cd diga_jax && bash launch/setup.sh demo'
  command+=" && .venv/bin/python -m pip install --quiet 'jax[tpu]'"
  local mount
  for mount in ${MOUNTS:-}; do
    command+=" && sudo mkdir -p ${mount##*:} && { mountpoint -q ${mount##*:}"
    command+=" || sudo gcsfuse -o allow_other --implicit-dirs ${mount%:*} ${mount##*:}; }"
  done
  on_workers all "$command"
}

run() {
  local command
  command="cd diga_jax && .venv/bin/python -m diga_jax $(printf '%q ' "$@" --distributed=auto)"
  on_workers all "$command 2>&1 | tee -a ~/diga_jax.log; exit \${PIPESTATUS[0]}"
}

for ((attempt = 1; attempt <= ${ATTEMPTS:-100}; attempt++)); do
  case "$(state)" in
    READY) ;;
    NONE) create && install ;;
    *) # pre-empted or broken: a slice in that state does not come back
      delete
      create && install
      ;;
  esac
  status=0
  run "$@" || status=$?
  if [ "$status" -eq 0 ] || [ "$status" -eq 2 ]; then # done, or a mistake that trying cannot mend
    break
  fi
  echo "attempt $attempt ended with status $status; going on" >&2
done
if [ -z "${KEEP:-}" ]; then
  delete
fi
exit "$status"
