# Image of the operator, without torch and Ray: make images, or
#   docker build -f docker/operator.Dockerfile -t f2llm-operator:0.1.0 .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY data_io data_io
COPY ray_app ray_app
COPY applications applications
COPY jobs jobs
# uv, because pip cannot check hashes of a constraints file together with a local directory.
RUN pip install --no-cache-dir uv && \
    uv pip install --no-cache --compile-bytecode --prefix /install --constraints constraints.txt '.[operator]'

FROM python:3.11-slim-bookworm
COPY --from=build /install /usr/local
USER 65532
WORKDIR /tmp
CMD ["python", "-m", "jobs.controller"]
