# Everything runs in .venv, which `setup` fills once and again when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo test test-slow test-gpu check format clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Install everything into .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
		{ echo "error: Python 3.11 to 3.13 is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1); name another: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## Upscale a short clip drawn on the spot; prints where the result is
	$(BIN)/swinir demo

test: setup  ## Run the tests that need neither a GPU nor minutes
	$(BIN)/python -m pytest

test-slow: setup  ## Run the tests that take minutes
	$(BIN)/python -m pytest -m 'slow and not gpu'

test-gpu: setup  ## Run the tests that need a CUDA GPU
	$(BIN)/python -m pytest -m gpu

check: setup  ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## Put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove .venv and everything generated
	rm -rf .venv build dist demo-output *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
