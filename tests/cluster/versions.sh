# Versions of the software that the cluster tests build and start. tests/unit/test_versions.py compares them with the page
# docs/cluster/before-you-begin.md and with the charts. Variables choose another Kubernetes or KubeRay, which is built once into
# a directory of its own: F2LLM_TEST_KUBERNETES=1.35.8 F2LLM_TEST_KUBERAY=1.6.1 make test-cluster
kubernetes=${F2LLM_TEST_KUBERNETES:-1.36.3}
kuberay=${F2LLM_TEST_KUBERAY:-1.6.2}
kueue=0.19.2
helm=4.3.1
unittest=1.1.2
kubeconform=0.8.0
kube_score=1.20.0
kube_router=2.1.0
prometheus=0.316.0
prometheus_operator=0.85.0
karpenter=1.14.0
karpenter_aws=1.14.1
gke_models=4.6.2
folder=${XDG_CACHE_HOME:-$HOME/.cache}/f2llm-ray/cluster/k8s-$kubernetes
[ -z "${F2LLM_TEST_KUBERAY:-}" ] || folder=$folder-kuberay-$kuberay
bin=$folder/bin
