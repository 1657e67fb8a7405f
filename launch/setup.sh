#!/usr/bin/env bash
# Makes the virtual environment .venv (or $VENV) and installs diga_jax with the extras given.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
extras=${1:-demo}
python=${PYTHON:-python3}
# One whose making was interrupted, or whose Python is gone, is made anew.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
    echo "$venv is no virtual environment: set VENV to another folder, or move it away" >&2
    exit 2
  fi
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || {
    echo "diga_jax needs Python 3.11, 3.12 or 3.13: set PYTHON=/path/to/python3.11" >&2
    exit 2
  }
  echo "making the virtual environment $venv"
  "$python" -m venv --clear "$venv"
fi
echo "installing diga_jax[$extras] into $venv (a few minutes the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
