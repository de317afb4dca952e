# Every target first makes the virtual environment (.venv) if it is missing. Nothing has to be installed or activated.
# Another interpreter: make demo PYTHON=python3.12

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PYTHON
# Without compiled bytecode, the imports of each process of a run take 25 s. With it they take 10 s.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE
IN_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make .venv and install the project and its tools into it (once; the other targets do it too)
	@tools/setup.sh

.PHONY: demo
demo: setup ## Train, resume, measure and export a small model on this machine; the run lands in runs/demo (ARGS="--workers 1")
	@F2LLM_SETUP_SECONDS=$$(cat .venv/setup-seconds) $(IN_VENV) f2llm demo $(ARGS)

.PHONY: test
test: setup ## Run all tests: unit and contract tests, then the integration tests (ARGS="-k storage")
	@tools/s3-server.sh >/dev/null || test -z "$${CI:-}"
	@$(IN_VENV) tools/test.sh $(ARGS)

.PHONY: test-cluster
test-cluster: setup ## Run the tests on a real Kubernetes, which takes some 15 minutes to build the first time (ARGS="-m pods")
	@tests/cluster/build.sh etcd kube-apiserver kube-controller-manager kuberay-manifests helm helm-unittest
	@tests/cluster/build.sh kube-scheduler kubelet kube-proxy coredns kuberay-operator pause promtool platform-crds gke-models kubeconform \
		kubernetes-schemas || \
		echo "some parts were not built: tests that need them are skipped" >&2
	@$(IN_VENV) python -m pytest -q tests/cluster $(ARGS)

.PHONY: lint
lint: setup ## Check style (ruff), unsafe calls (bandit), types (mypy --strict) and the direction of imports (import-linter)
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) bandit --quiet --configfile pyproject.toml --recursive data_io ray_app applications jobs tools
	@$(IN_VENV) mypy
	@$(IN_VENV) lint-imports

.PHONY: scan
scan: setup ## Scan code, Dockerfiles and Kubernetes objects with bandit, hadolint, checkov and kube-score
	@tests/cluster/build.sh helm kube-score || echo "not built: the scans of Kubernetes objects are left out" >&2
	@tools/scan.sh

.PHONY: format
format: setup ## Fix style problems that ruff can fix
	@$(IN_VENV) ruff check --fix .
	@$(IN_VENV) ruff format .

.PHONY: generate
generate: setup ## Write the generated files (docs/reference, the CRD, the table in docs/tasks/public-sources.md, dashboards, chart READMEs)
	@$(IN_VENV) python -m tools.generate.reference
	@$(IN_VENV) python -m jobs.kube.crd
	@$(IN_VENV) python -m tools.generate.sources_table
	@$(IN_VENV) python -m tools.generate.dashboards
	@$(IN_VENV) python -m tools.generate.chart_readme

.PHONY: docs
docs: setup ## Build the documentation as a site: build/docs/index.html
	@$(IN_VENV) sphinx-build -q -W --keep-going -d build/docs-cache docs build/docs
	@echo "build/docs/index.html"

.PHONY: sbom
sbom: setup ## Write a bill of materials (CycloneDX) and the licenses of all packages for each image: build/release/
	@tools/sbom.sh

.PHONY: images
images: ## Build both images with docker, podman or buildah (IMAGE_PREFIX=registry/ TAG=0.1.0 ARGS="--push"; ARGS=--dry-run prints the commands)
	@tools/images.sh $(ARGS)

.PHONY: chaos
chaos: setup ## Disturb runs in every way and compare them with an undisturbed one (ARGS="--runs 1 --events 5")
	@tools/s3-server.sh >/dev/null
	@$(IN_VENV) python -m bench.chaos $(ARGS)

.PHONY: bench
bench: setup ## Measure against peers; every figure in the README comes from here (ARGS="loader" for one)
	@$(IN_VENV) tools/bench.sh $(ARGS)

.PHONY: constraints
constraints: ## Write constraints.txt, every version with its hashes, from pyproject.toml (UPGRADE=1: after an upgrade of everything)
	@tools/uv.sh pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-emit-index-url --custom-compile-command "make constraints" \
		$(if $(UPGRADE),--upgrade,) --output-file constraints.txt
	@tools/uv.sh pip compile --quiet - <<<uv --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-emit-index-url --custom-compile-command "make constraints" \
		$(if $(UPGRADE),--upgrade,) --output-file docker/uv.txt

.PHONY: clean
clean: ## Remove .venv and everything that tools wrote; runs/ stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
