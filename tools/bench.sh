#!/usr/bin/env bash
# Run the measurements of bench/: all, or those named ("tools/bench.sh plan" runs bench.plan). Each says what it compares.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$#" = 0 ]; then
  set -- loader
  for file in bench/[a-z]*.py; do set -- "$@" "$(basename "$file" .py)"; done
fi
for name in "$@"; do
  echo "== bench.$name"
  python -m "bench.$name"
done
