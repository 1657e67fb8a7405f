#!/usr/bin/env bash
# Sets up and runs the tests; arguments go to pytest (such as -m 'not slow').
set -euo pipefail
cd "$(dirname "$0")/.."

bash launch/setup.sh test,demo
"${VENV:-.venv}/bin/python" -m pytest -n "${WORKERS:-2}" --dist loadfile "$@"
