# `make verify` and `make test` need Python 3.10 to 3.13 and nothing else: the first run makes
# .venv and installs into it, later runs use it as it is.

VENV := .venv
BIN := $(VENV)/bin
SUPPORTED := import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$p && break; done)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help verify compare test lint docs docs-test screenshots gallery format ci clean
.PHONY: bench-setup bench bench-docs wheel notebook fuzz
# The oldest Python that is found comes first: there all lower bounds are as low as they get.
OLDEST := .venv-oldest
OLDEST_PYTHON ?= $(shell for p in python3.10 python3.11 python3.12 python3.13 $(PYTHON); do \
	$$p -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$p && break; done)
OLDEST_PIP := $(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check
# What stands on the dependencies: Click, YAML, Rich, matplotlib, SciPy's eigensolvers, Keras
# and TensorFlow. OLDEST_TESTS=tests runs all there are.
OLDEST_TESTS ?= $(addprefix tests/test_,$(addsuffix .py,\
	cli config data problemfile keras_model plugin report html plots drawings export rooms \
	block reference witnesses_agree entry spectrum spectrum_command initialization train_cli \
	replay lower_bounds))
# What continuous integration has the minutes for: of each dependency, what depends on it most.
OLDEST_SHORT := $(addprefix tests/test_,$(addsuffix .py,\
	lower_bounds config problemfile keras_model html plots block reference))

.PHONY: test-thorough test-oldest soak soak-layers

help:
	@echo "make verify [ACTIVATION=relu]   hold the chain rule's Hessians against autodiff's"
	@echo "make compare [ACTIVATION=tanh]  split them into Gauss-Newton and curvature term"
	@echo "make test                       run the tests"
	@echo "make test-thorough              run them with five times as many random cases"
	@echo "make fuzz [FUZZ='--seed 1']      give it what is wrong: configurations, files, values"
	@echo "make test-oldest                run most of them with the oldest versions supported"
	@echo "make soak [NETWORKS=1000]       compare the witnesses on random networks [SEED=0]"
	@echo "make soak-layers [NETWORKS=1000] networks of all types of layers [SEED=0]"
	@echo "make lint                       check style, types and the order of the rooms"
	@echo "make ci [ACTIVATION=relu]       lint, test, some of it on oldest versions, verify"
	@echo "make docs                       build the documentation into build/site"
	@echo "make docs-test                  run its slow commands, which make test leaves out"
	@echo "make screenshots                draw the README's tables again"
	@echo "make gallery                    draw the plots of docs/gallery.md again"
	@echo "make wheel                      build dist/hesscli-*.whl"
	@echo "make notebook                   run the notebooks of docs/ and save their outputs"
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

# A process a core, each with a TensorFlow of its own, so not more than four. BLAS's threads, as many
# again in each, sleep while they wait: on cores that others use their spinning takes half the time.
# Many tests start processes, each of which would compile all of hesscli if none might keep it.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal

test: $(VENV)/.developing
	PYTHONDONTWRITEBYTECODE= OPENBLAS_THREAD_TIMEOUT=4 $(BIN)/python -m pytest $(PARALLEL)

# All of the random cases of which make test draws a fifth.
test-thorough: export HESSCLI_TESTS := thorough
test-thorough: test

# What went wrong is printed with its seed: make fuzz FUZZ="--kinds yaml --seed 12 --count 1".
fuzz: $(VENV)/.developing
	$(BIN)/python tests/fuzz.py $(FUZZ)

test-oldest: $(OLDEST)/.installed
	@echo "$$($(OLDEST)/bin/python -V) with" $$(cat $(OLDEST)/versions.txt)
	$(OLDEST)/bin/python -m pytest $(OLDEST_TESTS)

# A network is its seed: SEED=S NETWORKS=1 is one of a longer run again. JOBS is processes.
soak soak-layers: NETWORKS ?= 1000
soak soak-layers: SEED ?= 0
soak: $(VENV)/.developing
	$(BIN)/python tests/soak.py --networks $(NETWORKS) --seed $(SEED) $(if $(JOBS),--jobs $(JOBS))

soak-layers: $(VENV)/.developing
	$(BIN)/python tests/test_layers.py $(NETWORKS) $(SEED)

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The reference pages are written from the code first. A broken link ends it: with --quiet, MkDocs
# counts no warnings, and its strict mode lets everything through.
docs: $(VENV)/.documenting
	$(BIN)/python -m docs.tools.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "open build/site/index.html"

docs-test: $(VENV)/.developing
	$(BIN)/python -m pytest -m slow $(addprefix tests/test_,documentation.py gallery.py notebook.py)

screenshots: $(VENV)/.installed
	$(BIN)/python -m docs.tools.screenshots

gallery: $(VENV)/.installed
	$(BIN)/python -m docs.tools.gallery

# One after the other, also under make -j: their outputs would mix.
ci:
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) test-oldest OLDEST_TESTS="$(OLDEST_SHORT)"
	$(MAKE) verify

format: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.python
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

notebook: $(VENV)/.developing
	for n in docs/notebooks/*.ipynb; do $(BIN)/python docs/notebooks/execute.py $$n || exit 1; done

bench-setup: $(VENV)/.installed
	$(BIN)/python -m benchmarks.environments

bench: bench-setup
	$(BIN)/python -m benchmarks.run $(BENCH)

bench-docs: bench-setup
	$(BIN)/python -m benchmarks.page
	benchmarks/.venvs/plots/bin/python -m benchmarks.plot

clean:
	rm -rf $(VENV) $(OLDEST) benchmarks/.venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10 to 3.13 found; set PYTHON=" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	$(PIP) --editable ".[plot,threads]"
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(PIP) --editable ".[dev]"
	@touch $@

$(VENV)/.documenting: $(VENV)/.installed
	$(PIP) --editable ".[docs]"
	@touch $@

# Only wheels: a version that must be compiled here is none that anybody has.
$(OLDEST)/.installed: pyproject.toml tests/lower_bounds.py
	@test -n "$(OLDEST_PYTHON)" || \
		{ echo "make: no Python 3.10 to 3.13 found; set OLDEST_PYTHON=" >&2; exit 2; }
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST_PIP) packaging
	$(OLDEST_PIP) --no-deps --editable .
	$(OLDEST)/bin/python tests/lower_bounds.py test > $(OLDEST)/versions.txt
	$(OLDEST_PIP) --only-binary :all: --requirement $(OLDEST)/versions.txt
	@touch $@
