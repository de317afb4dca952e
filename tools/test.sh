#!/usr/bin/env bash
# Run the tests: the quick ones side by side, then those that start Ray and use every core themselves. The second part runs
# also where the first failed. Arguments are options for pytest.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

part() {
  python -m pytest -q "$@"
  local result=$?
  # 5: no test at all. With a filter (-k ...) that is no failure of a part.
  if [ "$result" != 0 ] && ! { [ "$result" = 5 ] && [ "$filtered" = yes ]; }; then failed=1; fi
}

filtered=no
[ "$#" = 0 ] || filtered=yes
part tests/unit tests/contract -n 2 "$@"
part tests/integration --durations=10 "$@"
exit "$failed"
