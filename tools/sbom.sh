#!/usr/bin/env bash
# Write a software bill of materials (CycloneDX) and the licenses of all Python packages, for each image:
#   build/release/operator.cdx.json, build/release/operator-licenses.txt, and the same for training
# The packages are those of the image: the same command installs them here into a temporary environment.
set -euo pipefail
cd "$(dirname "$0")/.."
cyclonedx=7.5.0 licenses=5.5.5
folder=build/release
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
mkdir -p "$folder"
for image in operator training; do
  extras=$(sed -n "s/.*'\.\[\([a-z,]*\)\]'.*/\1/p" "docker/$image.Dockerfile")
  tools/uv.sh venv --quiet --clear --no-project --python .venv/bin/python "$environment"
  tools/uv.sh pip install --quiet --python "$environment/bin/python" --constraints constraints.txt ".[$extras]"
  tools/uv.sh tool run --quiet --from "cyclonedx-bom==$cyclonedx" cyclonedx-py environment "$environment/bin/python" \
    --pyproject pyproject.toml --mc-type application --output-reproducible --output-format JSON --output-file "$folder/$image.cdx.json"
  tools/uv.sh tool run --quiet --from "pip-licenses==$licenses" pip-licenses --python "$environment/bin/python" --from mixed \
    --with-license-file --no-license-path --with-notice-file --with-urls --format plain-vertical --output-file "$folder/$image-licenses.txt"
done
ls "$folder"
