#!/usr/bin/env bash
# Print the path of the Python (3.11 or newer) for the environment: $PYTHON if it is set. Default: the first on PATH.
set -euo pipefail

usable() { # command -> the base interpreter's path, also when the command belongs to an active virtual environment
  "$1" -c '
import os, sys
if sys.version_info < (3, 11):
    sys.exit(1)
print(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))' 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
  usable "$PYTHON" && exit 0
  found=$("$PYTHON" --version 2>&1 | head -n 1 || true)
  echo "PYTHON=$PYTHON is not a working Python 3.11 or newer (its output: ${found:-nothing}). Set PYTHON to the path of one, or unset PYTHON" >&2
  exit 1
fi
for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
  usable "$name" && exit 0
done
found=$(python3 --version 2>&1 | head -n 1 || true)
echo "No Python 3.11 or newer on PATH (output of python3: ${found:-nothing}). Install one (Debian 12 and later: apt-get install python3) or set its path: PYTHON=/path/to/python3.12 make setup" >&2
exit 1
