#!/usr/bin/env bash
# Install the KubeRay operator from its own kustomize manifests, run from the lab's image.
set -euo pipefail
. "$(dirname "$0")/versions.sh"
export KUBECONFIG=${LAB:-/run/f2llm-lab}/kubeconfig
cat >"$bin/../kuberay/kustomization.yaml" <<T
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: kuberay-system
resources: [default]
patches:
- target: {kind: Deployment, name: kuberay-operator}
  patch: |
    - {op: replace, path: /spec/template/spec/containers/0/image, value: "localhost/f2llm-ray:test"}
    - {op: replace, path: /spec/template/spec/containers/0/command, value: ["$bin/kuberay-operator"]}
    - {op: replace, path: /spec/template/spec/securityContext/runAsNonRoot, value: false}
    - {op: replace, path: /spec/template/spec/containers/0/imagePullPolicy, value: Never}
    - {op: remove, path: /spec/template/spec/containers/0/resources}
T
kubectl create namespace kuberay-system --dry-run=client -o yaml | kubectl apply -f -
kubectl apply --server-side -k "$bin/../kuberay" | tail -3
kubectl -n kuberay-system rollout status deployment/kuberay-operator --timeout=90s
