# Everything on a fresh machine: `make benchmark` or `make test`. The plain-pip lines behind them are in README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: benchmark test install

benchmark: install
	$(BIN)/python benchmarks/run_all.py

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST)

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
