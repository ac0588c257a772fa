# `make demo` and `make test` are all a newcomer needs; both make .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-full lint bench browser clean

demo: $(VENV)/.installed
	$(BIN)/hoplens reproduce --quick --out results

test: $(VENV)/.installed-test lint browser
	$(BIN)/python -m pytest -n 2

# what is slow by nature at its full size: processes killed at random moments, whole examples, more random inputs
test-full: export HOPLENS_TESTS = full
test-full: test

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# side by side with JAX; run it on an idle machine
bench: $(VENV)/.installed
	$(PIP) --editable '.[bench]'
	$(BIN)/python benchmarks/run_all.py

# the pages are tested in Chromium; where it is missing and cannot be installed the tests say so and go on
APT := -o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { echo "installing Chromium for the tests of the pages"; \
	    { export DEBIAN_FRONTEND=noninteractive; apt-get $(APT) update -qq && apt-get $(APT) install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	    echo "Chromium could not be installed (that needs root and apt): the pages are not tested in a browser"; }

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "hoplens needs Python 3.10 or newer, but $(PYTHON) is older; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch goes in alone and first: a later package can then not choose another build of it
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing hoplens into $(VENV) (once; takes a minute or two)"
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
# only the data files of aeon are read; it would pull in other numpy and pandas than those pinned
	$(PIP) --no-deps aeon
	touch $@
