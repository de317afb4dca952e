#!/usr/bin/env bash
# Install Kueue from its own kustomize manifests, run from the lab's image. It manages only RayJobs. Its aggregated API is
# left out, since this API server is not configured for it.
set -euo pipefail
. "$(dirname "$0")/versions.sh"
export KUBECONFIG=${LAB:-/run/f2llm-lab}/kubeconfig
cat >"$bin/../kueue/components/manager/controller_manager_config.yaml" <<T
apiVersion: config.kueue.x-k8s.io/v1beta2
kind: Configuration
health: {healthProbeBindAddress: ":8081"}
metrics: {bindAddress: ":8443"}
webhook: {port: 9443}
integrations: {frameworks: [ray.io/rayjob]}
T
cat >"$bin/../kueue/kustomization.yaml" <<T
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [default]
patches:
- target: {kind: APIService}
  patch: |
    \$patch: delete
    apiVersion: apiregistration.k8s.io/v1
    kind: APIService
    metadata: {name: any}
- target: {kind: Deployment, name: kueue-controller-manager}
  patch: |
    - {op: replace, path: /spec/template/spec/containers/0/image, value: "localhost/f2llm-ray:test"}
    - {op: replace, path: /spec/template/spec/containers/0/command, value: ["$bin/kueue"]}
    - {op: replace, path: /spec/template/spec/containers/0/imagePullPolicy, value: Never}
    - {op: replace, path: /spec/template/spec/securityContext/runAsNonRoot, value: false}
    - {op: remove, path: /spec/template/spec/containers/0/resources}
T
kubectl create namespace kueue-system --dry-run=client -o yaml | kubectl apply -f -
kubectl apply --server-side -k "$bin/../kueue" | tail -3
kubectl -n kueue-system rollout status deployment/kueue-controller-manager --timeout=120s
# The pod is ready before its webhooks answer.
flavor='{"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "any"}}'
for _ in $(seq 60); do
  kubectl apply --dry-run=server -f - <<<"$flavor" >/dev/null 2>&1 && exit 0
  sleep 1
done
kubectl apply --dry-run=server -f - <<<"$flavor"
