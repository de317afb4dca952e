#!/usr/bin/env bash
# Run the tests in two parts, each with two processes, because tests often wait: first unit and contract tests and those
# that start interpreters, then those that start Ray. The second part also runs if the first failed. Arguments go to pytest.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

part() {
  python -m pytest -q --durations=15 --durations-min=2 "$@"
  local result=$?
  # 5: no test was selected. With a filter (-k ...) this is not a failure.
  if [ "$result" != 0 ] && ! { [ "$result" = 5 ] && [ "$filtered" = yes ]; }; then failed=1; fi
}

filtered=no
[ "$#" = 0 ] || filtered=yes
part tests/unit tests/contract tests/process -n 2 "$@"
part tests/integration -n 2 --dist loadfile --no-loadscope-reorder "$@" # the tests of a file share their trained models
exit "$failed"
