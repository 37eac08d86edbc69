# make demo   trains, tests and uses a digit classifier (about two minutes, set-up not counted)
# make test   runs the tests
# make check  format, lint, types, and what is made from results and code
# make docs   the documentation, into build/docs
# Each sets up .venv first, with the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test slow faults check results docs
demo: .venv/demo
	$(BIN)/python scripts/demo.py

test: .venv/dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

slow: .venv/dev
	$(BIN)/python -m pytest -m slow

faults: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m faults

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/results.py table --check
	$(BIN)/python -m scripts.speed --check
	$(BIN)/python -m scripts.docs --check

docs: .venv/docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

results: .venv/dev
	$(BIN)/python scripts/results.py table
	$(BIN)/python -m scripts.speed

.venv/demo: .venv/made
	@echo "installing into .venv (the first time takes a few minutes)"
	$(PIP) --editable '.[demo]'
	@touch $@

.venv/docs: .venv/made
	@echo "installing into .venv (the first time takes a few minutes)"
	$(PIP) --editable '.[docs]'
	@touch $@

.venv/dev: .venv/made
	@echo "installing into .venv (the first time takes a few minutes)"
	$(PIP) --editable '.[dev]'
	@touch $@

# Only a finished environment leaves this mark, so one cut short is made anew.
.venv/made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' || \
	  { echo "venv is missing: sudo apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	@touch $@
