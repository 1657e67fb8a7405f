#!/usr/bin/env bash
# Runs a command of diga_jax on all GPUs of this machine, in one process, and goes on after it was
# stopped by SIGTERM:
#
#   bash launch/gpus.sh run --config=gta5_to_cityscapes --workdir=/runs/gta5 [--config.x=y]
#
# From any folder, to which relative paths refer. GPUS=0,1 chooses some of them. DRY_RUN=1 prints what
# would be run.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${VENV:-.venv}
case $venv in
  /*) ;;
  *) venv=$root/$venv ;;
esac

do_or_print() {
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

if [ $# -eq 0 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
do_or_print bash "$root/launch/setup.sh" demo
do_or_print "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'jax[cuda12]'
if [ -n "${GPUS:-}" ]; then
  export CUDA_VISIBLE_DEVICES="$GPUS"
fi
status=75
while [ "$status" -eq 75 ]; do # 75: stopped by SIGTERM, all saved
  status=0
  do_or_print "$venv/bin/python" -m diga_jax "$@" || status=$?
done
exit "$status"
