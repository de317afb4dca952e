#!/usr/bin/env bash
# Run the tests, two side by side: unit and contract tests and those that start interpreters, then those that start Ray,
# since much of a run waits. The second part runs also if the first one failed. Arguments are options for pytest.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

part() {
  python -m pytest -q --durations=15 --durations-min=2 "$@"
  local result=$?
  # 5: no test at all. With a filter (-k ...) that is no failure of a part.
  if [ "$result" != 0 ] && ! { [ "$result" = 5 ] && [ "$filtered" = yes ]; }; then failed=1; fi
}

filtered=no
[ "$#" = 0 ] || filtered=yes
part tests/unit tests/contract tests/process -n 2 "$@"
part tests/integration -n 2 --dist loadfile --no-loadscope-reorder "$@" # a file's tests share what they train
exit "$failed"
