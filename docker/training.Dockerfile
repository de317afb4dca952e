# Image of all pods of a job: make images, or
#   docker build -f docker/training.Dockerfile -t f2llm-ray:0.1.0 .
# torch comes from PyPI, with the newest CUDA version. For another version, name an index of torch wheels:
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
# The digest is that of October 2026, for all architectures. A newer one: docker buildx imagetools inspect python:3.11-slim-bookworm
ARG BASE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
FROM ${BASE} AS build
ARG TORCH_INDEX=
WORKDIR /src
# uv, because pip cannot check hashes of a constraints file together with a local directory.
COPY docker/uv.txt ./
RUN pip install --no-cache-dir --require-hashes --requirement uv.txt
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY data_io data_io
COPY ray_app ray_app
COPY applications applications
COPY jobs jobs
# Wheels of another index have other hashes than those in constraints.txt.
RUN uv pip install --no-cache --compile-bytecode --prefix /install --constraints constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX" --index-strategy unsafe-best-match --no-verify-hashes} \
    '.[train,cluster,serve,benchmark]'

FROM ${BASE}
LABEL org.opencontainers.image.title="f2llm-ray" \
      org.opencontainers.image.description="Trains, evaluates and serves text-embedding models on Ray" \
      org.opencontainers.image.source="https://github.com/f2llm-ray/f2llm-ray" \
      org.opencontainers.image.documentation="https://github.com/f2llm-ray/f2llm-ray/blob/main/docs/index.md"
# wget: KubeRay's probes call it. Only its upstream version is pinned: Debian's archive keeps no older build of a security update.
# No compiler: torch and DeepSpeed would need one only for torch.compile, for kernels in Triton and for extensions that are
# built at their first use. A run uses none of them (ray_app/training/engine.py). pip is removed for the same reason.
RUN apt-get update && apt-get install -y --no-install-recommends 'wget=1.21.3-*' && rm -rf /var/lib/apt/lists/* && \
    pip uninstall --yes --root-user-action=ignore pip && useradd --uid 1000 --create-home f2llm
# In /usr/local, since KubeRay starts Ray in a login shell, which sets PATH to Debian's default.
COPY --from=build /install /usr/local
USER 1000
WORKDIR /tmp
