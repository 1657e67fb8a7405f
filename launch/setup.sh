#!/usr/bin/env bash
# Makes the virtual environment .venv (or $VENV) and installs diga_jax with the extras given.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
extras=${1:-demo}
if [ ! -x "$venv/bin/python" ]; then
  ${PYTHON:-python3} -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "diga_jax needs Python 3.11 or newer: set PYTHON=/path/to/python3.11" >&2
    exit 2
  }
  echo "making the virtual environment $venv"
  ${PYTHON:-python3} -m venv "$venv"
fi
echo "installing diga_jax[$extras] into $venv (a few minutes the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
