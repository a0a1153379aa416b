# FreshData: `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# A Python of your choice: make setup PYTHON=/path/to/python3. Empty takes the first that fits.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
MONTHS ?= 1
SPEED ?= 3600
SECONDS := 120
SEEDS ?= 10
JOBS ?= 1
ARGS ?=
PYTEST := $(BIN)/python -m pytest

##@ Start here

.PHONY: demo
demo: setup ## Run the main job on real data, end to end (MONTHS=12 for the whole year)
	@$(BIN)/freshdata demo --months $(MONTHS)

.PHONY: demo-cdc
demo-cdc: setup ## Capture a shop's database while people use it, verified row by row (SECONDS=120)
	@$(BIN)/freshdata cdc demo --seconds $(SECONDS)

.PHONY: test
test: setup ## Everything CI runs: lint, types, unit, integration, browser and a short chaos run
	@bash scripts/test.sh

##@ The platform

.PHONY: up
up: setup ## Leave the platform running, Dagster UI on 127.0.0.1:3000 (SPEED=3600)
	@$(BIN)/freshdata up --speed $(SPEED)

.PHONY: down
down: setup ## Stop it
	@$(BIN)/freshdata down

.PHONY: status
status: setup ## What runs, on which port, and how fresh each table is
	@$(BIN)/freshdata status

##@ Development

.PHONY: setup
setup: $(VENV)/.complete ## Prepare .venv/ and the Kafka jars; a re-run takes no time

$(VENV)/.complete: uv.lock pyproject.toml pom.xml scripts/setup.sh
	@bash scripts/setup.sh $(VENV) $(PYTHON)

.PHONY: lint
lint: setup ## Format check, lint, contract lint, model lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@for contract in contracts/*.odcs.yaml; do \
	  $(BIN)/datacontract lint --no-inline-references $$contract >/tmp/contract-lint.$$$$ 2>&1 \
	    || { cat /tmp/contract-lint.$$$$; rm -f /tmp/contract-lint.$$$$; exit 1; }; done; rm -f /tmp/contract-lint.$$$$
	@home=$$(mktemp -d); \
	  FRESHDATA_HOME=$$home $(BIN)/sqlmesh --log-file-dir $$home -p sqlmesh_models lint >$$home/lint.txt 2>&1 \
	    || { cat $$home/lint.txt; rm -rf $$home; exit 1; }; rm -rf $$home
	@echo "lint: clean"

.PHONY: types
types: setup ## Strict static types
	@$(BIN)/mypy

.PHONY: unit
unit: setup ## Unit tests
	@$(PYTEST) tests/unit

.PHONY: integration
integration: setup ## Tests on a real broker, lake and Dagster instance
	@$(PYTEST) tests/integration

.PHONY: test-spark
test-spark: setup ## The models on PySpark over a lake that DuckDB built
	@$(PYTEST) tests/integration/test_spark.py

.PHONY: test-trino
test-trino: setup ## The same on Trino: fetches its server with Maven (830 MB), needs Java 24
	@$(BIN)/python -m tests.trino
	@$(PYTEST) tests/integration/test_trino.py

.PHONY: browser
browser: setup ## Tests that drive the Dagster UI in headless Chromium
	@$(PYTEST) tests/browser

.PHONY: chaos
chaos: setup ## Random faults against real workers, every row compared after each (SEEDS=200 JOBS=2)
	@$(BIN)/python -m tests.chaos --seeds $(SEEDS) --jobs $(JOBS)

.PHONY: bench-ingest
bench-ingest: setup ## Kafka to Iceberg against its peers, half an hour and more (ARGS="--only worker,floor")
	@$(BIN)/python -m benchmarks.ingest $(ARGS)

.PHONY: bench-loaded
bench-loaded: setup ## How fresh one worker keeps Bronze at 50,000 events a second, about 2 minutes
	@$(BIN)/python -m benchmarks.ingest.loaded $(ARGS)

.PHONY: bench-memory
bench-memory: setup ## A worker's memory at ten million keys and 1,000 tenants, about 5 minutes
	@$(BIN)/python -m benchmarks.ingest.memory $(ARGS)

.PHONY: bench-decode
bench-decode: setup ## What decoding costs in each form that events may have, under a minute
	@$(BIN)/python -m benchmarks.decode $(ARGS)

.PHONY: bench-commits
bench-commits: setup ## What a commit costs as a table grows old (ARGS="--commits 600")
	@$(BIN)/python -m benchmarks.commits $(ARGS)

.PHONY: bench-clustering
bench-clustering: setup ## What a selective query reads before and after a compaction, about 5 minutes
	@$(BIN)/python -m benchmarks.clustering $(ARGS)

.PHONY: bench-freshness
bench-freshness: setup ## From an event to Gold through the whole platform, cold and warm runs, about 10 minutes
	@$(BIN)/python -m benchmarks.freshness $(ARGS)

.PHONY: bench-orchestration
bench-orchestration: setup ## Loading the code location and ticking its sensors, small and large, about 10 minutes
	@$(BIN)/python -m benchmarks.orchestration $(ARGS)

.PHONY: bench-merge
bench-merge: setup ## Incremental merges against their peers, and live runs as tables grow (ARGS="--rows 100000")
	@$(BIN)/python -m benchmarks.merge $(ARGS)

.PHONY: bench-gateway
bench-gateway: setup ## Events a second through the event gateway on one core, about 4 minutes; needs wrk
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

.PHONY: format
format: setup ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: lock
lock: setup ## Resolve pyproject.toml into uv.lock
	@$(BIN)/uv lock
	@$(BIN)/python scripts/lock.py

.PHONY: clean
clean: ## Stop the platform and remove everything that was made
	@if [ -x $(BIN)/freshdata ]; then $(BIN)/freshdata down || true; fi
	@rm -rf $(VENV) .freshdata .mypy_cache .ruff_cache .pytest_cache

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-zA-Z_-]+:.*## / {printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
