# make demo: from nothing to a table of four methods.  make test: what CI runs.
# make test-deep: the fuzz, kill, signal and full-disk tests in full numbers; so many submissions at once.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: demo test test-deep clean

NATIVE := scannet_css/sparse/engines/native.cpp scannet_css/sparse/engines/native_build.py

.venv/installed: requirements.txt setup.py $(NATIVE)
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --upgrade pip
	$(VENV)/python -m pip install --quiet -r requirements.txt -e .
	touch $@

demo: .venv/installed
	$(VENV)/python benchmarks/demo.py

test: .venv/installed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/python -m pytest

test-deep: .venv/installed
	$(VENV)/python -m pytest -m deep

clean:
	rm -rf .venv runs results data/synthetic
