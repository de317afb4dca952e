# Image of the operator, without torch and Ray: make images, or
#   docker build -f docker/operator.Dockerfile -t f2llm-operator:0.1.0 .
# The digest is that of October 2026, for all architectures. A newer one: docker buildx imagetools inspect python:3.11-slim-bookworm
ARG BASE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
FROM ${BASE} AS build
WORKDIR /src
# uv, because pip cannot check hashes of a constraints file together with a local directory.
COPY docker/uv.txt ./
RUN pip install --no-cache-dir --require-hashes --requirement uv.txt
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY data_io data_io
COPY ray_app ray_app
COPY applications applications
COPY jobs jobs
RUN uv pip install --no-cache --compile-bytecode --prefix /install --constraints constraints.txt '.[operator]'

FROM ${BASE}
LABEL org.opencontainers.image.title="f2llm-operator" \
      org.opencontainers.image.description="Runs EmbeddingJobs on Kubernetes as KubeRay RayJobs" \
      org.opencontainers.image.source="https://github.com/f2llm-ray/f2llm-ray" \
      org.opencontainers.image.documentation="https://github.com/f2llm-ray/f2llm-ray/blob/main/docs/index.md"
RUN pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /install /usr/local
USER 65532
WORKDIR /tmp
CMD ["python", "-m", "jobs.controller"]
