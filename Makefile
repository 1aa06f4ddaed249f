# make demo    take a whole course through a real nbgrader and this service
# make test    run the tests
# make docs    build a site from docs/ in docs/_build/html
# make image   build the image of the service and run the demo with it (docs/images.md)
# make compose run the service in containers; PARTS="postgresql s3" or "mariadb" adds servers
# make lock    rewrite requirements/; LOCK_ARGS=--upgrade takes the newest versions
# make hub-local   run a JupyterHub with a simulated LMS and this service (docs/tutorial.md)
#
# Each creates the virtual environment .venv if necessary; PYTHON names the Python for it.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n 3 --dist loadscope
DEMO_ARGS ?=
HUB_LOCAL_ARGS ?=
IMAGE_ARGS ?=
PARTS ?=
LOCK_ARGS ?=

BIN := $(VENV)/bin

.PHONY: demo docs hub-local test lint wheel image compose lock clean

demo: $(VENV)/.installed
	$(BIN)/nbexchange demo --directory=demo $(DEMO_ARGS)

docs: $(VENV)/.installed-for-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky -b html docs docs/_build/html

hub-local: $(VENV)/.installed-for-hub
	$(BIN)/python examples/hub-local/run.py $(HUB_LOCAL_ARGS)

test: $(VENV)/.installed-for-tests $(VENV)/.hub5
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(VENV)/.installed
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

image: $(VENV)/.installed
	NBEXCHANGE=$(BIN)/nbexchange scripts/image $(IMAGE_ARGS)

compose: .env
	docker compose up --build --detach --wait

.env:
	umask 077; scripts/compose-env $(PARTS) > $@.new && mv $@.new $@

lock: $(VENV)/.installed-for-tests
	PATH="$(abspath $(BIN)):$$PATH" scripts/lock $(LOCK_ARGS)

clean:
	rm -rf $(VENV) build dist demo docs/_build

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "nbexchange needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# uv installs the hundred packages of the tests in a fraction of pip's time. It does not read pip's
# configuration (a mirror, a certificate), so pip is used if uv fails; groups need pip 25.1.
$(BIN)/uv: | $(BIN)/pip
	-$(BIN)/pip install --quiet --only-binary uv uv

define install-group
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(packages) || \
	  { $(BIN)/pip install --quiet --upgrade 'pip>=25.1' && $(BIN)/pip install --quiet $(packages); }
endef

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[plugin]'
	touch $@

$(VENV)/.installed-for-hub: pyproject.toml examples/hub-local/requirements.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[plugin]' --requirement examples/hub-local/requirements.txt
	touch $@

$(VENV)/.installed-for-docs: packages = --editable '.[plugin]' --group docs
$(VENV)/.installed-for-docs: pyproject.toml | $(BIN)/uv
	$(install-group)
	touch $@

$(VENV)/.installed-for-tests: packages = --editable '.[plugin,postgresql,objects]' --group dev
$(VENV)/.installed-for-tests: pyproject.toml | $(BIN)/uv
	$(install-group)
	touch $@

# The other supported JupyterHub, in a separate environment that also sees the packages of .venv.
$(VENV)/.hub5: pyproject.toml | $(VENV)/.installed-for-tests
	$(BIN)/python -m venv --without-pip $(VENV)/hub5
	$(BIN)/pip --python $(VENV)/hub5/bin/python install --quiet --no-deps 'jupyterhub==5.5.*'
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > $$($(VENV)/hub5/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth
	touch $@
