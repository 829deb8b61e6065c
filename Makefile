# `make verify` and `make test` need Python 3.10 to 3.13 and nothing else: the first run makes
# .venv and installs into it, later runs use it as it is.

VENV := .venv
BIN := $(VENV)/bin
SUPPORTED := import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$p && break; done)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help verify compare test lint format ci clean bench-setup bench bench-docs

help:
	@echo "make verify [ACTIVATION=relu]   hold the chain rule's Hessians against autodiff's"
	@echo "make compare [ACTIVATION=tanh]  split them into Gauss-Newton and curvature term"
	@echo "make test                       run the tests"
	@echo "make lint                       check style, types and the order of the rooms"
	@echo "make ci [ACTIVATION=relu]       lint, test, verify"
	@echo "make format                     put the code into the project's format"
	@echo "make bench-setup                make the environments of the peers (4 GB)"
	@echo "make bench [BENCH=entries]      measure hesscli against its peers"
	@echo "make bench-docs                 put the measurements into docs/performance.md"
	@echo "make clean                      remove .venv and what tools left"

verify: ACTIVATION ?= relu
verify: $(VENV)/.installed
	$(BIN)/hesscli verify --activation $(ACTIVATION)

compare: ACTIVATION ?= tanh
compare: $(VENV)/.installed
	$(BIN)/hesscli compare --activation $(ACTIVATION)

test: $(VENV)/.developing
	$(BIN)/python -m pytest

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One after the other, also under make -j: their outputs would mix.
ci:
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) verify

format: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-setup: $(VENV)/.installed
	$(BIN)/python -m benchmarks.environments

bench: bench-setup
	$(BIN)/python -m benchmarks.run $(BENCH)

bench-docs: bench-setup
	$(BIN)/python -m benchmarks.page
	benchmarks/.venvs/plots/bin/python -m benchmarks.plot

clean:
	rm -rf $(VENV) benchmarks/.venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10 to 3.13 found; set PYTHON=" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	$(PIP) --editable ".[plot]"
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(PIP) --editable ".[dev]"
	@touch $@
