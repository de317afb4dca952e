# What all pods of a job run: docker build -f docker/training.Dockerfile -t f2llm-ray:0.1.0 .
# For another CUDA, choose another index of torch's wheels: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu128
# wget is what KubeRay's probes call; a C++ compiler builds DeepSpeed's extensions at their first use.
RUN apt-get update && apt-get install -y --no-install-recommends wget g++ ninja-build && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/f2llm
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY data_io data_io
COPY ray_app ray_app
COPY jobs jobs
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" '.[train,cluster]'
RUN useradd --uid 1000 --create-home f2llm
USER 1000
WORKDIR /tmp
