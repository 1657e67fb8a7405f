#!/usr/bin/env bash
# The whole recipe on rendered street scenes: about ten minutes on two CPU cores.
# Stop it whenever you like: the same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

bash launch/setup.sh demo
"${VENV:-.venv}/bin/python" -m diga_jax run \
  --config=configs/quickstart.py --workdir="${WORKDIR:-runs/quickstart}" "$@"
