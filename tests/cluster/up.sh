#!/usr/bin/env bash
# Start a one-node Kubernetes on this machine: etcd, API server, controller manager, scheduler, containerd, kubelet,
# kube-proxy, CoreDNS. Needs root and Debian's containerd, runc and containernetworking-plugins.
# $LAB (default /run/f2llm-lab) is a tmpfs: overlayfs may not keep its upper layer inside its own lower layer, and the
# image "localhost/f2llm-ray:test" has this machine's own root as its lower layer.
set -euo pipefail
trap 'echo "$0: line $LINENO: failed: $BASH_COMMAND" >&2' ERR
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/versions.sh"
lab=${LAB:-/run/f2llm-lab}
pods_path=${LAB_POD_PATH:-$PATH} # PATH inside the pods: put the project's virtual environment first
port=${LAB_PORT:-16443}
ip=$(hostname -I | cut -d' ' -f1)

mountpoint -q "$lab" && "$here/down.sh" # the remains of a killed run
mkdir -p "$lab" && mount -t tmpfs -o size=10g f2llm-lab "$lab"
mkdir -p "$lab"/{pki,logs,pids,etcd,cni,images}
start() { # name, command...
  local name=$1; shift
  setsid nohup "$@" >"$lab/logs/$name.log" 2>&1 </dev/null & echo $! >"$lab/pids/$name"
}
until_ok() { # seconds, command...
  local n=$1; shift
  for _ in $(seq $((n * 5))); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
  echo "timed out: $*" >&2; return 1
}

[ -f "$lab/pki/sa.key" ] || { openssl genrsa -out "$lab/pki/sa.key" 2048; openssl rsa -in "$lab/pki/sa.key" -pubout -out "$lab/pki/sa.pub"; } 2>/dev/null
token=$(head -c 18 /dev/urandom | base64 | tr -d '/+=')
echo "$token,admin,admin,\"system:masters\"" >"$lab/pki/tokens.csv"
start etcd "$bin/etcd" --data-dir "$lab/etcd" --listen-client-urls http://127.0.0.1:12379 \
  --advertise-client-urls http://127.0.0.1:12379 --listen-peer-urls http://127.0.0.1:12380 --unsafe-no-fsync
start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:12379 --secure-port="$port" \
  --advertise-address="$ip" --cert-dir="$lab/pki" --token-auth-file="$lab/pki/tokens.csv" --authorization-mode=Node,RBAC \
  --service-account-key-file="$lab/pki/sa.pub" --service-account-signing-key-file="$lab/pki/sa.key" \
  --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=10.96.0.0/16 \
  --kubelet-preferred-address-types=InternalIP --allow-privileged=true
export KUBECONFIG=$lab/kubeconfig
kubectl config set-cluster lab --server="https://127.0.0.1:$port" --insecure-skip-tls-verify=true >/dev/null
kubectl config set-credentials admin --token="$token" >/dev/null
kubectl config set-context lab --cluster=lab --user=admin >/dev/null
kubectl config use-context lab >/dev/null
until_ok 60 kubectl get --raw /readyz
start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$KUBECONFIG" --leader-elect=false \
  --service-account-private-key-file="$lab/pki/sa.key" --root-ca-file="$lab/pki/apiserver.crt" \
  --use-service-account-credentials=true --cert-dir="$lab/pki/kcm"
start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false --cert-dir="$lab/pki/scheduler"

cat >"$lab/containerd.toml" <<T
version = 2
root = "$lab/containerd"
state = "$lab/containerd-state"
[grpc]
  address = "$lab/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:lab"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$lab/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
T
cat >"$lab/cni/10-lab.conflist" <<T
{"cniVersion": "0.4.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni-lab", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$lab/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
T
sysctl -qw net.ipv4.ip_forward=1
ip link show cni-lab >/dev/null 2>&1 || { ip link add cni-lab type bridge && ip addr add 10.244.0.1/24 dev cni-lab && ip link set cni-lab up; }
start containerd containerd -c "$lab/containerd.toml"
ctr() { command ctr -a "$lab/containerd.sock" -n k8s.io "$@"; }
until_ok 30 ctr version
python3 "$here/programs/make_image.py" "$lab/images/pause.tar" localhost/pause:lab --file pause="$bin/pause" --cmd /pause
python3 "$here/programs/make_image.py" "$lab/images/host.tar" localhost/f2llm-ray:test --env "PATH=$bin:$pods_path" --cmd /bin/sh
ctr image import "$lab/images/pause.tar" >/dev/null
ctr image import "$lab/images/host.tar" >/dev/null
layer=$(grep -l localhost/f2llm-ray:test "$lab"/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/.lab-image)
mount --bind / "$(dirname "$layer")" # the image's one layer is now this machine's root, copy on write

cat >"$lab/kubelet.yaml" <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$lab/containerd.sock
clusterDNS: [10.244.0.1]
clusterDomain: cluster.local
resolvConf: ""
enforceNodeAllocatable: []
evictionHard: {memory.available: 1Mi, nodefs.available: 0%, imagefs.available: 0%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
port: 20250
healthzPort: 20248
T
start kubelet "$bin/kubelet" --kubeconfig="$KUBECONFIG" --config="$lab/kubelet.yaml" --root-dir="$lab/kubelet" \
  --hostname-override=lab-0 --cert-dir="$lab/pki/kubelet"
start kube-proxy "$bin/kube-proxy" --kubeconfig="$KUBECONFIG" --proxy-mode=nftables --hostname-override=lab-0 \
  --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0
cat >"$lab/Corefile" <<T
.:53 {
    bind 10.244.0.1
    errors
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $KUBECONFIG lab
        ttl 0
    }
}
T
start coredns "$bin/coredns" -conf "$lab/Corefile"
until_ok 60 sh -c "kubectl get node lab-0 -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}' | grep -q True"
echo "KUBECONFIG=$KUBECONFIG"
