# Every target makes or updates .venv by itself; nothing is installed outside it.
PYTHON ?= python3
BIN := .venv/bin
PROFILE ?= cpu

.PHONY: help demo test test-slow lint bench results clean

help:
	@echo "make demo       label, train, bench on the photographs in the repository (minutes)"
	@echo "make test       the fast tests"
	@echo "make test-slow  the slow ones too"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make bench      the measurements of docs/benchmarks.md (long)"
	@echo "make results    the ablation of docs/results.md (hours; PROFILE=gpu on a GPU, else cpu; DATA=FOLDER)"

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed; say which with: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || \
	  { echo "make: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: .venv/.installed
	rm -rf demo-output
	$(BIN)/distill demo --out demo-output

test: .venv/.installed
	$(BIN)/python -m pytest -q -m "not slow" --durations=10

test-slow: .venv/.installed
	$(BIN)/python -m pytest -q --durations=10

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/cluster.py
	$(BIN)/python benchmarks/ranks.py

results: .venv/.installed
	$(BIN)/python benchmarks/results.py --profile $(PROFILE) $(if $(DATA),--data $(DATA))

clean:
	rm -rf .venv build demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis
