#!/usr/bin/env bash
# Builds the documentation as a site, site/index.html; a warning is an error. With `serve` it is
# shown at http://127.0.0.1:8000 and follows the pages while they are edited. Other arguments go to mkdocs.
set -euo pipefail
cd "$(dirname "$0")/.."

bash launch/setup.sh docs
export NO_MKDOCS_2_WARNING=1 # an advertisement of the theme's
if [ "${1:-}" = serve ]; then
  "${VENV:-.venv}/bin/python" -m mkdocs "$@"
else
  "${VENV:-.venv}/bin/python" -m mkdocs build --strict "$@"
fi
