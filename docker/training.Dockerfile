# Image of all pods of a job: make images, or
#   docker build -f docker/training.Dockerfile -t f2llm-ray:0.1.0 .
# torch comes from PyPI, with the newest CUDA version. For another version, name an index of torch wheels:
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
FROM python:3.11-slim-bookworm
ARG TORCH_INDEX
# KubeRay's probes call wget.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/f2llm
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY data_io data_io
COPY ray_app ray_app
COPY applications applications
COPY jobs jobs
# uv, because pip cannot check hashes of a constraints file together with a local directory. Wheels of another index have other hashes.
RUN pip install --no-cache-dir uv && \
    uv pip install --no-cache --compile-bytecode --system --constraints constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX" --index-strategy unsafe-best-match --no-verify-hashes} \
    '.[train,cluster,serve,benchmark]'
RUN useradd --uid 1000 --create-home f2llm
USER 1000
WORKDIR /tmp
