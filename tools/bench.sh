#!/usr/bin/env bash
# Run all benchmarks of bench/, or only the given ones ("tools/bench.sh plan" runs bench.plan).
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
