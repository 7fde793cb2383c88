# make digits | test | lint: each builds .venv first if there is none.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: digits test lint format clean

digits: $(VENV)/installed
	$(BIN)/python -m snnvit_jax.main --config=configs/digits.py

test: $(VENV)/installed
	$(BIN)/pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed
	$(BIN)/ruff format .

$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache build *.egg-info
