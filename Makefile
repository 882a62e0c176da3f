# Everything runs in .venv, which is created on first use with any Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
# Tests wait for servers much of their time, so three more workers than processors shorten the run.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 3)')
BIN := $(VENV)/bin
EXAMPLES ?= 5000

.PHONY: demo test test-site fuzz test-versions test-oldest test-interop test-interop-choria check bench bench-compare docs clean

$(VENV)/.installed: pyproject.toml nats-server.conf.j2
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## the whole system on this machine, real servers, real TLS
	$(BIN)/broker-auth demo

test: $(VENV)/.installed check  ## types, style, and every test; fails if too little of the code was run
	rm -rf .coverage
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

fuzz: $(VENV)/.installed  ## property tests with new examples each time, EXAMPLES of each
	EXAMPLES=$(EXAMPLES) $(BIN)/pytest -n auto -m hypothesis --hypothesis-profile fuzz --timeout 0 -o faulthandler_timeout=0

test-interop: $(VENV)/.installed  ## tokens both ways with Choria's own code; needs Go, and lists the skipped tests
	INTEROP=1 $(BIN)/pytest tests/interop

# Whole provisionings also need Choria Provisioner: CHORIA_PROVISIONER=PROGRAM, built from a checkout of it. Programs that could
# not be built are skipped, and the table at the end lists them.
test-interop-choria: $(VENV)/.installed  ## the same, with Choria's programs built from its released modules; half an hour
	rm -f $(VENV)/choria $(VENV)/choria_server
	-cd tests/interop/choria && CGO_ENABLED=0 go build -mod=readonly -o $(CURDIR)/$(VENV)/choria .
	-cd tests/interop/choria_server && CGO_ENABLED=0 go build -mod=readonly -o $(CURDIR)/$(VENV)/choria_server .
	INTEROP=1 CHORIA=$(CURDIR)/$(VENV)/choria CHORIA_SERVER=$(CURDIR)/$(VENV)/choria \
	CHORIA_SERVERS=$(CURDIR)/$(VENV)/choria:$(CURDIR)/$(VENV)/choria_server $(BIN)/pytest tests/interop

test-versions: $(VENV)/.installed  ## the server's facts and the whole system on every supported nats-server; some minutes
	$(BIN)/python -m tests.servers

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-oldest:  ## with the oldest dependencies that pyproject.toml allows, on Python 3.11
	$(PYTHON) -m venv --clear $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet --disable-pip-version-check uv
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest/bin/python --resolution lowest-direct --editable '.[server,fast,websocket,query,static]'
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest/bin/python pytest pytest-asyncio pytest-timeout pytest-xdist hypothesis coverage PyYAML
	$(VENV)-oldest/bin/pytest -n auto --dist loadfile tests/policy tests/tokens tests/settings tests/cli tests/callout tests/deploy tests/e2e

docs: $(VENV)/.installed  ## the documentation site, in site/; generates pages from the code first
	$(BIN)/python -m tests.docs.pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test-site: $(VENV)/.installed  ## every page in a real browser, on a phone and a desktop: SITE_BROWSER=chromium
	SITE_BROWSER=$(or $(SITE_BROWSER),chromium) $(BIN)/pytest tests/docs/test_browser.py

bench: $(VENV)/.installed  ## the cost of a decision, a request and a connection on this machine
	$(BIN)/broker-auth bench

bench-compare: $(VENV)/.installed  ## a comparison with two other callout libraries, if the network and Go permit it
	$(BIN)/python -m tests.bench.compare.compare

clean:
	rm -rf $(VENV) $(VENV)-oldest dist build site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
