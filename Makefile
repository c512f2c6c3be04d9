# `make` lists the targets. All a fresh clone needs is python3, pip and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip
CODE   := worldmodel envs agents evaluation
JOBS ?= auto
RESULTS := evaluation/results/cpu-2-cores

# Small tensors on busy cores: more threads, and threads that spin, cost more than they give.
THREADS := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE}
PYTEST  := $(THREADS) $(BIN)/python -m pytest

# Stamps: an install is repeated only when what it depends on has changed.
BASE := $(VENV)/.installed
DEV  := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu test-browser torture lint format docs bench report clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BASE)  ## install and run the quickstart
	@echo "==> Running examples/quickstart.py"
	@$(BIN)/python examples/quickstart.py

test: lint  ## install, check style, types and layers, run the fast tests (JOBS=2 side by side)
	@echo "==> Running the fast tests with coverage"
	@$(PYTEST) --cov --numprocesses $(JOBS) --maxprocesses 4 --dist worksteal

test-slow: $(DEV)  ## run the tests marked slow
	@echo "==> Running the slow tests"
	@$(PYTEST) -m "slow and not gpu and not browser"

test-gpu: $(DEV)  ## run the tests marked gpu (they need a CUDA device)
	@echo "==> Running the GPU tests"
	@$(PYTEST) -m gpu

test-browser: $(DEV)  ## run the tests marked browser (they need Chromium: apt install chromium)
	@$(PIP) install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@echo "==> Looking at TensorBoard in headless Chromium"
	@$(PYTEST) -m browser

torture: $(DEV)  ## kill, fuzz, flood and soak it, and count (ONLY="-k survival" for a part)
	@echo "==> Torturing"
	@$(PYTEST) tests/torture --torture --torture-json $(RESULTS)/stress.json $(ONLY)

lint: $(DEV)  ## check style, types and layers
	@echo "==> Checking style (ruff check)"
	@$(BIN)/ruff check .
	@echo "==> Checking format (ruff format --check)"
	@$(BIN)/ruff format --check .
	@echo "==> Checking types (mypy --strict)"
	@$(BIN)/mypy
	@echo "==> Checking layers (lint-imports)"
	@$(BIN)/lint-imports

format: $(DEV)  ## format the code and fix what ruff can fix
	@echo "==> Formatting (ruff format, ruff check --fix)"
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(DOCS)  ## build the documentation (docs/_build/html/index.html)
	@echo "==> Building docs/_build/html (sphinx; warnings are errors)"
	@$(THREADS) $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: $(DEV)  ## measure all results again (7 hours on a CPU; ONLY=speed-all for one of them)
	@echo "==> Running the commands behind evaluation/results/cpu-2-cores"
	@$(THREADS) $(BIN)/python -m evaluation bench $(ONLY)

report: $(BASE)  ## write evaluation/results/REPORT.md from the results (10 seconds)
	@echo "==> Writing evaluation/results/REPORT.md"
	@$(THREADS) $(BIN)/python -m evaluation report

clean:  ## remove .venv, caches and build files (keeps runs/ and outputs/)
	@echo "==> Removing $(VENV), caches and build files"
	@rm -rf $(VENV) build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage htmlcov
	@find $(CODE) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@echo "==> Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "make: 'python -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "==> Installing jumpy-worldmodel into $(VENV) (the first time downloads torch: minutes)"
	@$(PIP) install --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "==> Installing jumpy-worldmodel[dev] into $(VENV) (the first time downloads torch: minutes)"
	@$(PIP) install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(BASE) $@

$(DOCS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "==> Installing jumpy-worldmodel[docs] into $(VENV) (the first time downloads torch: minutes)"
	@$(PIP) install --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $(BASE) $@
