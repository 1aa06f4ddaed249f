# make demo    one whole course through a real nbgrader and this service
# make test    the tests
#
# Each makes its own virtual environment in .venv; PYTHON names the Python to make it with.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n 2 --dist loadscope
DEMO_ARGS ?=

BIN := $(VENV)/bin

.PHONY: demo test lint wheel clean

demo: $(VENV)/.installed
	$(BIN)/nbexchange demo --directory=demo $(DEMO_ARGS)

test: $(VENV)/.installed-for-tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(VENV)/.installed
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist demo

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "nbexchange needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	# Groups of pyproject.toml need pip 25.1.
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[plugin]'
	touch $@

$(VENV)/.installed-for-tests: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[plugin,postgresql,objects]' --group dev
	touch $@
