# make digits | test | test-all | lint | docs: each builds .venv first if there is none.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: digits test test-all lint docs format clean

digits: $(VENV)/installed
	$(BIN)/python -m snnvit_jax.main --config=configs/digits.py

test: $(VENV)/installed
	$(BIN)/pytest

test-all: $(VENV)/installed
	$(BIN)/pytest -m ""

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The site, in build/site/docs/index.html; a warning is an error.
docs: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,docs]'
	rm -rf build/site  # or pages of modules that have not changed would keep their old links
	$(BIN)/sphinx-build -W --keep-going -q -b html -c docs . build/site

format: $(VENV)/installed
	$(BIN)/ruff format .

$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache build *.egg-info
