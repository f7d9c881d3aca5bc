# `make help` lists the targets. Everything is installed into .venv from the lock files.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cluster test check fmt unit integration simulate fuzz e2e bench docs image lock clean
PYTHON ?= python3
BIN := .venv/bin
# tests wait more than they compute; each worker has servers of its own
WORKERS ?= 3
SIDE_BY_SIDE := -n $(WORKERS) --dist worksteal

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## install everything into .venv (done by the other targets)

.venv/ready: requirements-dev.lock pyproject.toml .ci/setup
	@PYTHON=$(PYTHON) sh .ci/setup

demo: setup ## watch users drift and be mended; KEEP=1 leaves it running
	@$(BIN)/python -m deploy.demo $(if $(KEEP),--keep)

demo-cluster: setup ## the same on a real Kubernetes API server, built once from its Go modules
	@$(BIN)/python -m deploy.demo --cluster $(if $(KEEP),--keep)

test: check ## every test: unit, integration, and end to end on a real Kubernetes API server
	@$(BIN)/python -m tests.support.controlplane build
	@$(BIN)/pytest $(SIDE_BY_SIDE) --ignore=tests/unit

check: setup ## the gate while working: format, lint, types, layers, unit tests
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary && $(BIN)/lint-imports > .venv/layers.txt || { cat .venv/layers.txt; exit 1; }
	@$(BIN)/pytest -q tests/unit

fmt: setup ## format the code and mend what the linter can
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

unit: setup ## the unit tests alone
	@$(BIN)/pytest tests/unit

integration: setup ## on a real PostgreSQL and the emulator over HTTP
	@$(BIN)/pytest $(SIDE_BY_SIDE) tests/integration

simulate: setup ## N random histories of the whole world (N=10000, SEED=... plays the same ones again)
	@$(BIN)/python -m tests.simulation -n $(or $(N),1000) -j $(WORKERS) $(if $(SEED),--seed $(SEED))

fuzz: setup ## N odd and genuine requests to the webhook service (N=60000)
	@USERSYNC_FUZZ=$(or $(N),60000) $(BIN)/pytest -q -s --no-header --timeout 0 tests/integration/test_webhooks_fuzz.py

e2e: setup ## on a real Kubernetes API server, with real kubectl
	@$(BIN)/python -m tests.support.controlplane build
	@$(BIN)/pytest $(SIDE_BY_SIDE) tests/e2e

bench: setup ## the figures of docs/performance.md: a sweep at 100,000 users beside the naive way; LARGE=1: one user with 1,000,000 rows; ORPHANS=1: 10,000 orphans out of 1,000,000 users; WEBHOOK=1: events, beside Express; VALUES=1: mapped columns
	@$(BIN)/python -m tests.bench$(if $(LARGE),.large)$(if $(ORPHANS),.orphans)$(if $(WEBHOOK),.webhook)$(if $(VALUES),.values)

docs: setup ## write docs/api.md anew from the CRD
	@$(BIN)/python -m tests.support.api_reference > docs/api.md

image: ## build the container image with docker, podman or buildah, whichever is there
	@builder=$$(command -v docker || command -v podman || command -v buildah) || { echo "make image needs docker, podman or buildah." >&2; exit 1; }; \
	"$$builder" build -f deploy/Dockerfile -t usersync:dev .

lock: setup ## resolve the dependencies anew into the lock files
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev --extra demo -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## remove what the targets made here (not the cache of the API server)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
