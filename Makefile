# The one entry to the project. `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

# Where Python may write no bytecode, importing Lightning takes more than twice as long.
unexport PYTHONDONTWRITEBYTECODE
# A virtual environment that happens to be active is not ours.
unexport VIRTUAL_ENV
unexport PYTHONPATH
# The theme advertises its successor at every build.
export NO_MKDOCS_2_WARNING := 1
# uv trusts what the machine trusts; its own list knows no company's proxy.
export UV_SYSTEM_CERTS ?= 1

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
READY := $(VENV)/.ready

# The Python that .venv is made from: make setup PYTHON=python3.12
PYTHON ?= $(firstword $(foreach p,python3.11 python3 python3.12 python3.13 python,$(if $(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo yes),$(p))))
# Test processes: make test JOBS=1
JOBS ?= auto
# Where the demo writes; a second make demo goes on there
DEMO ?= runs/demo
# More arguments for pytest: make test ARGS='-k sidecar -x'
ARGS ?=
# make lock UPGRADE=--upgrade takes the newest versions; without it only what has to move moves.
UPGRADE ?=

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

.PHONY: setup
setup: $(READY) ## Make .venv from locks/dev.txt (with uv where it is found, else with pip)

# Redone when the lock or pyproject.toml changes.
$(READY): locks/dev.txt pyproject.toml
	@if command -v uv >/dev/null 2>&1; then $(setup_with_uv); else $(setup_with_pip); fi
	@touch $@

define setup_with_uv
set -x; \
test -x $(BIN)/python || uv venv --python '$(or $(PYTHON),3.11)' $(VENV); \
uv pip sync --python $(BIN)/python --require-hashes --compile-bytecode locks/dev.txt; \
uv pip install --python $(BIN)/python --no-deps --no-build-isolation --compile-bytecode --editable .
endef

define setup_with_pip
if [ -z '$(PYTHON)' ]; then echo 'make setup: no Python 3.11 or newer on PATH; install one or name it: make setup PYTHON=...' >&2; exit 1; fi; \
set -x; \
test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); \
$(BIN)/python -m pip install --compile --require-hashes --requirement locks/dev.txt; \
$(BIN)/python -m pip install --compile --no-deps --no-build-isolation --editable .
endef

.PHONY: demo
demo: $(READY) ## Train, evaluate and export on synthetic jersey numbers
	test -d $(DEMO)/data || $(BIN)/classifier synth $(DEMO)/data --classes 12
	$(BIN)/classifier train --config-name train_demo data.data_root=$(DEMO)/data hydra.run.dir=$(DEMO)/run
	$(BIN)/classifier evaluate $(DEMO)/run --split test
	$(BIN)/classifier export $(DEMO)/run
	$(BIN)/classifier verify $(DEMO)/run
	$(BIN)/classifier predict $(DEMO)/run $(DEMO)/data/test --out $(DEMO)/predictions.csv
	@echo 'the numbers: the table above, and $(DEMO)/run/evaluation/*/metrics.json. All of it lies in $(DEMO).'

.PHONY: test
test: $(READY) ## Run the fast tests
	$(PYTEST) -n $(JOBS) $(ARGS)

.PHONY: test-browser
test-browser: $(READY) ## Open reports in a real browser (needs chromium and chromium-driver)
	$(PYTEST) -m browser $(ARGS)

.PHONY: test-all
test-all: $(READY) ## Run the slow and the browser tests too, with coverage
	$(PYTEST) -n $(JOBS) -m 'not gpu' --cov --cov-report=term $(ARGS)

.PHONY: test-cov
test-cov: $(READY) ## Run the fast tests with coverage, which must reach 85 %
	$(PYTEST) -n $(JOBS) --cov --cov-report=term --cov-report=xml --cov-fail-under=85 $(ARGS)

.PHONY: lint
lint: $(READY) ## Lint, direction of imports, declared dependencies
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry src

.PHONY: format
format: $(READY) ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: format-check
format-check: $(READY) ## Say whether the code is formatted
	$(BIN)/ruff format --check .

.PHONY: typecheck
typecheck: $(READY) ## Check types
	$(BIN)/mypy

.PHONY: check
check: lint format-check typecheck ## All that can be checked without running: lint, format-check, typecheck

.PHONY: precommit
precommit: $(READY) ## Run the hooks of pre-commit on all files
	$(BIN)/pre-commit run --all-files

.PHONY: bench
bench: $(READY) ## Run the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: golden-update
golden-update: $(READY) ## Rewrite the golden files from what the code does now; read the diff before you commit
	$(PYTEST) tests/golden tests/unit/test_targets.py -m 'not gpu' --update-golden $(ARGS)

# One set of versions for every Python: dev is resolved first, train and runtime take theirs from it.
# pip refuses a hashed lock that names coverage where coverage[toml] is asked for: extras are kept.
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --fork-strategy fewest \
	--no-strip-extras --no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE)

.PHONY: lock
lock: ## Make the locks from pyproject.toml (needs uv); UPGRADE=--upgrade for the newest versions
	@command -v uv >/dev/null 2>&1 || { echo 'make lock needs uv on PATH' >&2; exit 2; }
	$(LOCK) --extra dev --output-file locks/dev.txt
	$(LOCK) --extra train --constraint locks/dev.txt --output-file locks/train.txt
	$(LOCK) --constraint locks/dev.txt --output-file locks/runtime.txt

.PHONY: quality
quality: check ## The same as check, by the sibling's name

.PHONY: docs
docs: $(READY) ## Serve the documentation on localhost:8000 while you write
	$(BIN)/mkdocs serve

.PHONY: docs-build
docs-build: $(READY) ## Build the documentation into site/; a broken link fails
	$(BIN)/mkdocs build --strict

.PHONY: dist
dist: $(READY) ## Build wheel and sdist into dist/
	$(BIN)/python -m build --no-isolation

# Tag of the local image: make build-local IMAGE=classifier-training:test
IMAGE ?= classifier-training:latest

.PHONY: build
build: ## Build the training image in the cloud (needs gcloud) and push it
	gcloud builds submit --config cloud/cloudbuild.yaml --substitutions "SHORT_SHA=$$(git rev-parse --short HEAD)"

.PHONY: build-local
build-local: ## Build the training image here (needs docker)
	docker build --target train --tag $(IMAGE) .

.PHONY: clean
clean: ## Remove caches and build output; keeps .venv and runs
	rm -rf build dist site htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
