# `make demo` and `make test` need Python ≥ 3.11, git and make; they do everything else themselves.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test test-slow check benchmark clean


demo: .venv/installed
	rm -rf demo-output
	$(BIN)/birdinv demo -o demo-output

test: check
	$(BIN)/python -m pytest

benchmark: .venv/installed
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/birds.py
	$(BIN)/python benchmarks/prediction.py
	$(BIN)/python benchmarks/few_labels.py
	$(BIN)/python benchmarks/recipe.py
	$(BIN)/python benchmarks/swwae.py
	$(BIN)/python benchmarks/templates.py

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml requirements/constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("birdinv needs Python 3.11 or newer; set PYTHON=… to one")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-output build *.egg-info
