# Everything on a fresh machine: `make benchmark` or `make test`. The plain-pip lines behind them are in README.md.
# `make docs` builds the site in site/ from docs/; it needs no network beside the installation.
# `make oldest` runs the tests with the oldest versions that pyproject.toml allows; those warn of their own age.
PYTHON ?= python3
BIN := .venv/bin
# tests/conftest.py puts the files that take longest first
TESTS := -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: benchmark test docs install oldest

benchmark: install
	$(BIN)/python benchmarks/run_all.py

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python $(TESTS) $(PYTEST)

docs: install
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	VIRTUAL_ENV=.venv-oldest .venv-oldest/bin/uv pip install --resolution lowest-direct --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python $(TESTS) -o filterwarnings=default $(PYTEST)
