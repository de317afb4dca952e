#!/usr/bin/env bash
# A Python for non-root pods: the system's, with the packages of .venv. The Python of .venv can be in a home directory.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$PWD/build/pod-python
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
python=$(.venv/bin/python -c 'import sys; print("/usr/bin/python%d.%d" % sys.version_info[:2])')
[ -x "$python" ] || { echo "no $python: pods that are not root have no Python here" >&2; exit 1; }
rm -rf "$folder"
"$python" -m venv --without-pip "$folder"
echo "import site; site.addsitedir('$packages')" >"$(echo "$folder"/lib/python*/site-packages)/venv.pth"
for script in .venv/bin/*; do
  head -c 200 "$script" 2>/dev/null | head -n 1 | grep -q "^#!.*/.venv/bin/python" || continue
  { echo "#!$folder/bin/python"; tail -n +2 "$script"; } >"$folder/bin/$(basename "$script")"
  chmod +x "$folder/bin/$(basename "$script")"
done
echo "$folder/bin"
