# One target for everything a person does here. Needs Python 3.11 or newer, make, and the package registries;
# the rest is installed from lock files into .venv, again only when a lock changed.

# Plain assignments: `make up PORT=9000` sets them, a HOST or PORT that the shell happens to export does not.
HOST = 127.0.0.1
PORT = 8080
N = 3
DATA = ./comptoir-data
VENV ?= .venv
JOBS ?= 2
TESTS ?= tests
KILLS = 200
SEED = 1
TOPOLOGY = sqlite,postgres,cluster
FROM ?= HEAD
ARGS ?=

export VENV
# Python keeps what it compiles (.gitignore and `make clean` know of it): half of the cost of a start.
unexport PYTHONDONTWRITEBYTECODE
PY = $(VENV)/bin/python
PYTEST = $(PY) -m pytest
# A process runs a file to its end, and the longest begin (tests/order.py).
BY_FILE = --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help up cluster test clients proofs check fmt size bench beside chaos openapi migration wheel lock upgrade upgrade-proof hooks clean venv-run venv-dev

help: ## List all targets (this list).
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: venv-run ## Start coordinator and local worker, ready to answer (HOST=127.0.0.1 PORT=8080 DATA=./comptoir-data).
	@exec $(VENV)/bin/comptoir up --host $(HOST) --port $(PORT) --data $(DATA) $(ARGS)

cluster: venv-dev ## Start N=3 coordinators with PostgreSQL, Redis, a balancer and a worker on this machine, to try and to break.
	@exec $(VENV)/bin/comptoir up --cluster $(N) --host $(HOST) --port $(PORT) --data $(DATA)-cluster $(ARGS)

test: venv-dev ## Run all tests but the long proofs on JOBS=2 processes (TESTS=path and ARGS="-k word" narrow it).
	@tools/chromium.sh
	@tools/proxies.sh
	@tools/bubblewrap.sh
	@tools/node_sdk.sh
	@tools/infernet_client.sh
	@tools/clients.sh openai3
	@echo "Run elsewhere: the house rules (tests/house) by 'make check', the proofs (-m proof) by 'make proofs', the heavy"
	@echo "clients (-m clients) by 'make clients'."
	$(PYTEST) --numprocesses $(JOBS) $(BY_FILE) -m "not proof and not clients" $(if $(filter tests,$(TESTS)),--ignore=tests/house) $(ARGS) $(TESTS)

clients: venv-dev ## Drive every client of docs/clients.md, the heavy ones too; installs 2.5 GB of them beside .venv.
	@tools/node_sdk.sh
	@tools/infernet_client.sh
	@tools/clients.sh
	$(PYTEST) --numprocesses $(JOBS) --dist load $(ARGS) tests/clients tests/node tests/dialects/openai/test_python_sdk.py tests/dialects/infernet/test_official_client.py

proofs: venv-dev ## Run the long proofs: planted bugs, long searches of state machines and properties, ended runs.
	@tools/chromium.sh
	@tools/bubblewrap.sh
	$(PYTEST) --numprocesses $(JOBS) --dist load --hypothesis-profile=long -m "proof or search or hypothesis" $(ARGS) $(TESTS)

check: venv-dev ## Check format, lint, types, walls between rooms, house rules, install size; changes nothing.
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PYTEST) --quiet tests/house
	$(PY) tools/install_size.py

fmt: venv-dev ## Format the code and fix what the linter can fix by itself.
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

size: venv-dev ## Install the wheel and its locked base in an empty folder; fail above 60 MB.
	$(PY) tools/install_size.py

bench: venv-dev ## Run the benchmarks; figures go to bench/out.
	$(PY) -m bench $(ARGS)

beside: venv-dev ## Compare speed with an earlier commit, in alternating windows (FROM=REV).
	PYTHONPATH=src:. $(PY) -m bench.beside $(FROM) $(ARGS)

chaos: venv-dev ## Kill things under load, episode after episode (JOBS=10000 KILLS=200 SEED=1 TOPOLOGY=sqlite,postgres,cluster).
	$(PY) -m tests.chaos --jobs $(if $(findstring command,$(origin JOBS)),$(JOBS),10000) --kills $(KILLS) --seed $(SEED) --topology $(TOPOLOGY) $(ARGS)

upgrade-proof: venv-dev ## Upgrade from an earlier commit under load, on both databases, and check that nothing is lost (FROM=REV).
	$(PY) -m tests.upgrade --from $(FROM) $(ARGS)

openapi: venv-dev ## Write openapi/<dialect>.json from the endpoint declarations.
	$(PY) tools/openapi.py

migration: venv-dev ## Write a migration for changed table declarations (NAME=what_changes), and compile all to SQL.
	$(PY) -m tools.compile_migrations $(if $(NAME),new $(NAME))

wheel: venv-dev ## Build the wheel into dist.
	$(PY) -m build --wheel --no-isolation

lock: venv-dev ## Write requirements/*.txt and the npm lock from pyproject.toml and package.json; keeps versions.
	tools/lock.sh

upgrade: venv-dev ## Like lock, but take the newest versions.
	tools/lock.sh --upgrade

hooks: venv-dev ## Have git run the quick checks before each commit.
	$(VENV)/bin/pre-commit install

clean: ## Remove caches, builds and the environment. Data folders stay.
	rm -rf $(VENV) $(VENV)-clients dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/out
	rm -rf tests/node/node_modules tests/clients/node/node_modules
	find src tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

venv-run:
	@tools/venv.sh run

venv-dev:
	@tools/venv.sh dev
