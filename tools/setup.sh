#!/usr/bin/env bash
# Make this checkout's virtual environment, .venv, and install the project with all its dependencies. Does nothing if
# pyproject.toml, constraints.txt, directory and interpreter are unchanged. Writes its duration to .venv/setup-seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
stamp=.venv/setup-stamp
wanted=$({ cat pyproject.toml constraints.txt && pwd; } | sha256sum | cut -d ' ' -f 1)

healthy() { # the environment is complete, matches these files and, if PYTHON is set, that interpreter
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || return 1
  local version
  version=$(.venv/bin/python -c 'import platform; print(platform.python_version())' 2>/dev/null) || return 1
  [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c 'import platform; print(platform.python_version())' 2>/dev/null)" = "$version" ]
}

if healthy; then
  echo 0 >.venv/setup-seconds
  exit 0
fi
python=$(tools/python.sh)
echo "Setting up .venv with $("$python" --version) ($python). The first set-up downloads about 3 GB and uses 6 GB of disk."
rm -f "$stamp"
base=$(.venv/bin/python -c 'import os, sys; print(os.path.realpath(sys._base_executable))' 2>/dev/null || true)
if [ "$base" != "$python" ]; then # update an environment of the same interpreter, replace any other
  tools/uv.sh venv --quiet --clear --no-project --python "$python" .venv
fi
quiet=--quiet
[ ! -t 2 ] || quiet= # show progress only on a terminal; in a log it would be hundreds of lines
tools/uv.sh pip install $quiet --python .venv/bin/python --constraints constraints.txt --editable '.[dev]'
seconds=$((SECONDS - started))
echo "$seconds" >.venv/setup-seconds
echo "$wanted" >"$stamp"
echo "Set-up took $seconds s."
