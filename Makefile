# Every target works alone on a fresh clone with Python (3.11 to 3.13), pip and make, and does again only what changed.
#
#   make demo           ten recipes on real images, a table here and a report on disk
#   make test           the test suite
#   make check          lint, format, types, layers
#   make test-interop   the tests beside torchvision, timm, laplace-torch, ... (an environment of its own, 6 GB)
#   make bench          all benchmarks against the rivals, in that same environment
#   make clean          remove environments, caches and builds; runs/ stays

PYTHON ?= python3
WORKERS ?= 2
DEMO ?= compare --demo

VENV := .venv
BIN := $(VENV)/bin
INTEROP := .venv-interop
IBIN := $(INTEROP)/bin

# One thread a process: workers share the cores without fighting over them, and sums keep their order.
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check test-interop bench clean
.DEFAULT_GOAL := test

demo: $(VENV)/.study
	$(BIN)/python -m levelhead.cli.main $(DEMO)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not interop" $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Libraries that we do not control warn when imported: here a warning is no error. `make test` holds our own code to that.
test-interop: $(INTEROP)/.interop
	$(IBIN)/python -m pytest -n $(WORKERS) --dist worksteal -m interop -W default tests/interop $(ARGS)

bench: $(INTEROP)/.interop
	$(IBIN)/python -m benchmarks --all $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.study: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing levelhead[study] into $(VENV) (a minute or two) ..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[study]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing levelhead[study,data,dev] into $(VENV) (a minute or two) ..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[study,data,dev]"
	@touch $@

$(IBIN)/python:
	$(PYTHON) -m venv $(INTEROP)

# torch and torchvision first: what comes after must find them installed and not choose another pair.
$(INTEROP)/.interop: pyproject.toml constraints-interop.txt | $(IBIN)/python
	@echo "Installing levelhead[study,dev,interop] into $(INTEROP) (several minutes, 6 GB) ..."
	$(IBIN)/python -m pip install --quiet --constraint constraints-interop.txt torch torchvision
	$(IBIN)/python -m pip install --quiet --constraint constraints-interop.txt --editable ".[study,dev,interop]"
	@touch $@

clean:
	rm -rf $(VENV) $(INTEROP) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
