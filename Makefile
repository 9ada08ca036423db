# Everything a newcomer runs. Needs make and a Python of 3.11 to 3.13 with venv; all else comes from requirements.lock.
MAKEFLAGS += --no-print-directory --silent
.DEFAULT_GOAL := help
.PHONY: help demo up test simulate coverage cluster-test e2e-aws chaos check format lock clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# The first Python of a supported version that can make a virtual environment; `make PYTHON=/path/to/python` overrides.
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		2>/dev/null && { command -v "$$python"; break; }; done)

help: ## this list
	awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## the main job on this machine: one submission from the queue to its leaderboard row
	$(BIN)/leaderboard demo

up: $(READY) ## start the embedded stack and keep it until Ctrl-C
	$(BIN)/leaderboard up

# Much of the time is waiting for processes: one more than there are cores.
JOBS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
# The longest first (tests/side_by_side.py).
TESTS := tests/flows tests/e2e tests/contract tests/simulation tests/unit

test: $(READY) ## every test that needs no external service, side by side (JOBS=3)
	echo "Some 3600 tests in $(JOBS) processes: about 15 minutes on 2 cores, less on more."
	$(BIN)/python -m pytest -n $(JOBS) $(TESTS)

coverage: $(READY) ## the same, and which lines and branches they run: a table, and build/coverage/index.html
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report term:skip-covered --cov-report html $(TESTS)

cluster-test: $(READY) ## the tests on a real Kubernetes control plane (needs Go once, ten minutes; or KUBECONFIG)
	test -n "$$KUBECONFIG" || { $(BIN)/python -m tests.cluster.binaries && $(BIN)/python -m tests.cluster.binaries kubelet; } || true
	$(BIN)/python -m pytest -rs tests/cluster

SEEDS ?= 100
FIRST ?= 1
simulate: $(READY) ## the product in simulated worlds of so many seeds, in virtual time, with faults (SEEDS=100, FIRST=1)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

SEED ?= 1
SUBMISSIONS ?= 40
chaos: $(READY) ## 40 submissions while parts are killed at random; 10 minutes at most (SEED=1, SUBMISSIONS=40)
	$(BIN)/python -m tests.chaos --seed $(SEED) --submissions $(SUBMISSIONS)

e2e-aws: $(READY) ## the compute client in a real AWS account (COMPUTE_QUEUE, COMPUTE_TABLE, COMPUTE_BUCKET), else skipped
	$(BIN)/python -m pytest -rs tests/aws

check: $(READY) ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## sort imports, fix what can be fixed, format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: ## resolve the dependencies anew into requirements.lock (needs uv)
	command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --all-extras --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-package leaderboard-flows-embedded --upgrade --quiet --output-file requirements.lock

clean: ## remove the virtual environment, the stack's folder and all caches
	rm -rf $(VENV) .leaderboard .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml embedded/pyproject.toml
	test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with venv found. Install one, or say which:" \
		"make PYTHON=/path/to/python3.11" >&2; exit 1; }
	echo "Setting up $(VENV) with $(PYTHON) (one to three minutes the first time):"
	# What is there is brought up to date; `make clean` before it begins anew.
	$(BIN)/python -c pass 2>/dev/null || { rm -rf $(VENV); "$(PYTHON)" -m venv $(VENV); }
	echo "  1 of 3: packages, as locked in requirements.lock ..."
	# As constraints too: older pips do not see that sqlalchemy[asyncio], which Prefect asks for, is pinned.
	$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock -c requirements.lock
	echo "  2 of 3: this project ..."
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation \
		--editable . --editable ./embedded
	echo "  3 of 3: an empty database for the embedded Prefect ..."
	$(BIN)/python -m embedded.prefect_server
	touch $(READY)
