# make demo: from nothing to a table of four methods.  make test: what CI runs.
PYTHON ?= python3
VENV := .venv/bin
METHODS := finetune lwf lgkd joint

.PHONY: demo test clean

.venv/installed: requirements.txt setup.py
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --upgrade pip
	$(VENV)/python -m pip install --quiet -r requirements.txt -e .
	touch $@

demo: .venv/installed
	for method in $(METHODS); do \
	    $(VENV)/python benchmarks/run.py --method $$method --keep-predictions || exit 1; done
	$(VENV)/python benchmarks/demo_pictures.py
	$(VENV)/python benchmarks/leaderboard.py
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then \
	    $(VENV)/python -m webbrowser "file://$(CURDIR)/results/index.html"; \
	else echo "open results/index.html in a browser"; fi

test: .venv/installed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/python -m pytest

clean:
	rm -rf .venv runs results data/synthetic
