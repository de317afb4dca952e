#!/usr/bin/env bash
# Build a Kubernetes from Go modules into the user's cache, once per version: no image registry, no Docker. An empty cache
# takes about 20 minutes on two CPUs and 700 MB. Arguments select programs: tests/cluster/build.sh etcd kube-apiserver
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)/programs
. "$here/../versions.sh"
ray_operator=github.com/ray-project/kuberay/ray-operator@v$kuberay
mkdir -p "$bin"
command -v go >/dev/null || { echo "no Go compiler on PATH: tests with a real Kubernetes are skipped" >&2; exit 0; }

version="-X k8s.io/component-base/version.gitVersion=v$kubernetes -X k8s.io/component-base/version.gitMajor=1"
flags="-s -w $version -X k8s.io/component-base/version.gitMinor=${kubernetes:2:2}"

finish() { # name: a rename, so that other processes see either no program or a complete one
  mv "$stage/$1" "$bin/$1"
}
finish_folder() { # its name, the name of its build, which gets a marker among the programs
  rm -rf "${folder:?}/$1" && mv "$stage/$1" "$folder/$1" && : >"$bin/$2" && chmod +x "$bin/$2"
}
build() { # name, package; in the current directory
  GOFLAGS=-p=2 go build -ldflags "$flags" -o "$stage/$1" "$2"
  finish "$1"
}
install_at() { # name, package@version
  GOFLAGS="-p=2 ${GOFLAGS:-}" GOBIN=$stage go install -ldflags "-s -w" "$2"
  finish "$1"
}
kube_module() { # a directory with a go.mod for this version of Kubernetes: the one here, or a copy that requires another version
  local ours
  ours=$(sed -n 's/^\tk8s.io\/kubernetes v\([0-9.]*\).*/\1/p' "$here/kube/go.mod")
  [ "$ours" != "$kubernetes" ] || { echo "$here/kube"; return; }
  if [ ! -d "$stage/kube" ]; then
    cp -r "$here/kube" "$stage/kube"
    sed -i "s/v1\.${ours#1.}\>/v$kubernetes/; s/v0\.${ours#1.}\>/v0.${kubernetes#1.}/" "$stage/kube/go.mod"
    (cd "$stage/kube" && rm -f go.sum && go mod tidy >&2)
  fi
  echo "$stage/kube"
}
module() { # module@version -> its directory
  (cd "$stage" && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
}
program() { # name
  case $1 in
    kube-router) cd "$(module "github.com/cloudnativelabs/kube-router/v2@v$kube_router")" && build "$1" ./cmd/kube-router ;;
    kube-score) install_at kube-score "github.com/zegl/kube-score/cmd/kube-score@v$kube_score" ;;
    kube-*|kubelet) cd "$(kube_module)" && build "$1" "k8s.io/kubernetes/cmd/$1" ;;
    etcd) cd "$here/etcd" && build etcd go.etcd.io/etcd/server/v3 ;;
    coredns) cd "$here/coredns" && build coredns github.com/coredns/coredns ;;
    kuberay-manifests) # a directory next to that of the programs
      cp -r --no-preserve=mode "$(module "$ray_operator")/config" "$stage/kuberay" && finish_folder kuberay "$1" ;;
    kuberay-operator) cd "$(module "$ray_operator")" && build kuberay-operator . ;;
    kueue-manifests)
      cp -r --no-preserve=mode "$(module "sigs.k8s.io/kueue@v$kueue")/config" "$stage/kueue" && finish_folder kueue "$1" ;;
    kueue) cd "$(module "sigs.k8s.io/kueue@v$kueue")" && build kueue ./cmd/kueue ;;
    helm) install_at helm "helm.sh/helm/v4/cmd/helm@v$helm" ;;
    helm-unittest)
      cd "$(module "github.com/helm-unittest/helm-unittest@v$unittest")" && build helm-unittest ./cmd/helm-unittest ;;
    promtool|prometheus) # without the cloud clients, which take longer than everything else
      GOFLAGS=-tags=remove_all_sd,enable_kubernetes_sd CGO_ENABLED=0 \
        install_at "$1" "github.com/prometheus/prometheus/cmd/$1@v$prometheus" ;;
    prometheus-operator|prometheus-config-reloader)
      cd "$here/prometheus-operator"
      CGO_ENABLED=0 build "$1" "github.com/prometheus-operator/prometheus-operator/cmd/${1/prometheus-operator/operator}" ;;
    platform-crds) # a directory with the foreign CRDs of the objects of helm/f2llm-platform
      mkdir "$stage/platform-crds"
      for place in "sigs.k8s.io/kueue@v$kueue config/components/crd/bases" \
        "sigs.k8s.io/karpenter@v$karpenter pkg/apis/crds" \
        "github.com/aws/karpenter-provider-aws@v$karpenter_aws pkg/apis/crds" \
        "github.com/prometheus-operator/prometheus-operator@v$prometheus_operator example/prometheus-operator-crd"; do
        cp --no-preserve=mode "$(module "${place% *}")/${place#* }"/*.yaml "$stage/platform-crds/"
      done
      finish_folder platform-crds "$1" ;;
    gke-models) # Google publishes its ComputeClass in its documentation only; this package has the schema of a real cluster
      command -v npm >/dev/null || { echo "no npm on PATH: ComputeClasses are not checked" >&2; exit 0; }
      npm install --silent --no-audit --no-fund --prefix "$stage/gke-models" "@kubernetes-models/gke@$gke_models"
      finish_folder gke-models "$1" ;;
    kubeconform) install_at kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@v$kubeconform" ;;
    kubernetes-schemas) # a directory with Kubernetes' schemas of its own resources
      mkdir "$stage/kubernetes-schemas"
      cp --no-preserve=mode "$(module "k8s.io/kubernetes@v$kubernetes")/api/openapi-spec/swagger.json" "$stage/kubernetes-schemas"
      finish_folder kubernetes-schemas "$1" ;;
    pause) gcc -static -Os -o "$stage/pause" "$here/pause/pause.c" && finish pause ;;
    *) echo "no such program: $1" >&2; exit 2 ;;
  esac
}

all=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy coredns kuberay-manifests kuberay-operator)
all+=(helm helm-unittest pause kueue-manifests kueue promtool platform-crds gke-models kubeconform kubernetes-schemas)
all+=(prometheus prometheus-operator prometheus-config-reloader kube-router)
[ $# -gt 0 ] || set -- "${all[@]}"
stage=$(mktemp -d "$folder/build.XXXXXX")
trap 'rm -rf "$stage"' EXIT
for name in "$@"; do
  [ ! -x "$bin/$name" ] || continue
  echo "building $name" >&2
  (program "$name")
done
