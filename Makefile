# One place for what one does here. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help
help: ## List what one can do here
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  ARGS="…" is passed on, as in: make demo ARGS=--check · make test ARGS="-k ledger"'

# Two locks, both with hashes: what runs, and what runs plus what checks it. pip refuses anything else.
$(VENV)/runtime: requirements/runtime.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what it runs on (once) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: requirements/dev.txt pyproject.toml $(VENV)/runtime
	@echo "Installing what checks it (once) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: demo
demo: $(VENV)/runtime ## The whole job on real purchases; ARGS=--check runs it once and exits
	@$(BIN)/metafield-sync demo $(ARGS)

.PHONY: check
check: $(VENV)/dev ## Format, lint, types, imports, SQL, image, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/squawk $$(git ls-files --cached --others --exclude-standard 'src/*.sql')
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

.PHONY: test
test: check ## Everything that must hold: the checks, then the tests
	$(BIN)/pytest $(ARGS)

.PHONY: bench
bench: $(VENV)/dev ## Measure side by side; see docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-sync
bench-sync: $(VENV)/dev ## Measure syncing on a devstore with 100 ms latency (some minutes)
	$(BIN)/python -m benchmarks sync $(ARGS)

.PHONY: chaos
chaos: $(VENV)/dev ## Everything goes wrong for a minute, nothing may stay wrong: ARGS="--seed 7 --seconds 60"
	@$(BIN)/python -m chaos $(ARGS)

.PHONY: fmt
fmt: $(VENV)/dev ## Put the code in its usual form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lock
lock: $(VENV)/dev ## Refresh both locks from pyproject.toml (needs uv: pip install uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra embedded --extra devstore requirements/build.in pyproject.toml \
	  --output-file requirements/runtime.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra embedded --extra devstore --group dev --constraint requirements/runtime.txt requirements/build.in pyproject.toml \
	  --output-file requirements/dev.txt
