# Everything starts here, on a machine with Python 3.11 or newer and make. `make demo` is the first thing to run.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that the tests are spread over: one more than cores, since many wait for sockets and clocks most of the time.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test up bench bench-learning bench-planted bench-real-models bench-live bench-peers bench-gpu clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 25

demo: $(VENV)/installed ## Install, then run the whole chain over 7 days of two simulated markets (no network)
	$(BIN)/hindsight demo

test: $(VENV)/installed-dev ## Install, then run the linter, the type checker and the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	home=$$(mktemp -d) && DAGSTER_HOME=$$home $(BIN)/dg check defs; checked=$$?; rm -rf $$home; exit $$checked
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m 'not browser'
	$(BIN)/pytest -m browser

up: $(VENV)/installed ## Open the UI, record the market as it moves, predict and learn at every close
	$(BIN)/hindsight up

bench: $(VENV)/installed ## Measure speed, size and memory on this machine, each against its goal
	$(BIN)/python -m benchmarks

# LEARNED=DIR reads what a long run into that HINDSIGHT_HOME has left, instead of learning first.
bench-learning: $(VENV)/installed ## Measure what is learned of 60 simulated days and of a real year: an hour or more
	$(BIN)/python -m benchmarks learning $(if $(LEARNED),--home $(LEARNED))

bench-planted: $(VENV)/installed ## Measure whether every block of a frame arrives, and only where it should: half an hour
	$(BIN)/python -m benchmarks planted

# WHAT="--since 2022-01-01 --until 2022-03-12 …" asks for less; what is learned stays in .hindsight/real-models.
bench-real-models: $(VENV)/installed ## Measure four ways to learn two real years of two markets with every model: a day
	$(BIN)/python -m benchmarks.real_models $(WHAT)

bench-live: $(VENV)/installed ## Measure the live path: from a close to a checkpoint, under kill -9, and for an hour with faults
	$(BIN)/python -m benchmarks.live

bench-peers: $(VENV)/installed ## Measure beside what people use today, each installed below .hindsight/peers: an hour or more
	$(BIN)/python -m benchmarks.peers

bench-gpu: $(VENV)/installed ## Measure what a GPU makes of it; without one, the same on the processor
	$(BIN)/python -m benchmarks.gpu

clean: ## Remove the environment and the caches; what was recorded and learned (.hindsight) stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: installing is repeated only when what is to be installed has changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Hindsight needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the pinned dependencies into $(VENV): some minutes, once."
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the pinned dependencies into $(VENV): some minutes, once."
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(VENV)/installed $@
