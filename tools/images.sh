#!/usr/bin/env bash
# Build both images with docker, podman or buildah, and print the Helm values that use them.
#   tools/images.sh [--push] [--dry-run]
#   IMAGE_PREFIX=registry.example.org/ml/   before the names of the images, with the slash at its end. Default: none.
#   TAG=0.1.0                               Default: the version in helm/f2llm-operator/Chart.yaml.
#   BUILDER=podman                          Default: the first of docker, podman and buildah that is on PATH.
#   TORCH_INDEX=URL                         index of torch wheels for another CUDA version. Default: PyPI.
#   BASE=IMAGE                              base image with Python 3.11 in /usr/local. Default: the one in docker/, by its digest.
# --push pushes the images after the build. --dry-run prints the commands and runs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${IMAGE_PREFIX:-}
tag=${TAG:-$(sed -n 's/^appVersion: //p' helm/f2llm-operator/Chart.yaml)}
dry_run='' push=''
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=1 ;;
    --push) push=1 ;;
    *) echo "error: unknown argument: $argument; expected --push or --dry-run" >&2; exit 2 ;;
  esac
done
case $prefix in
  ''|*/) ;;
  *) echo "error: IMAGE_PREFIX is '$prefix'; expected a slash at its end: IMAGE_PREFIX=$prefix/" >&2; exit 2 ;;
esac
if [ -n "$push" ] && [ -z "$prefix" ]; then
  echo "error: --push needs a registry; set IMAGE_PREFIX, for example IMAGE_PREFIX=registry.example.org/ml/" >&2
  exit 2
fi

builder=${BUILDER:-}
for name in docker podman buildah; do
  [ -n "$builder" ] || ! command -v "$name" >/dev/null || builder=$name
done
if [ -z "$builder" ]; then
  echo "error: none of docker, podman and buildah is on PATH; install one of them to build images" >&2
  exit 3
fi
command -v "$builder" >/dev/null || { echo "error: BUILDER is $builder, which is not on PATH" >&2; exit 3; }

run() { # prints a command, and runs it unless this is a dry run
  echo "$*"
  [ -n "$dry_run" ] || "$@"
}
operator=${prefix}f2llm-operator:$tag training=${prefix}f2llm-ray:$tag
options=(${BASE:+--build-arg "BASE=$BASE"} --label "org.opencontainers.image.version=$tag")
run "$builder" build -f docker/operator.Dockerfile "${options[@]}" -t "$operator" .
run "$builder" build -f docker/training.Dockerfile "${options[@]}" ${TORCH_INDEX:+--build-arg "TORCH_INDEX=$TORCH_INDEX"} -t "$training" .
if [ -n "$push" ]; then
  run "$builder" push "$operator"
  run "$builder" push "$training"
fi
echo
echo "Values of f2llm-operator: --set image=$operator --set jobs.image=$training"
