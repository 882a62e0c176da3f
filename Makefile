# Everything happens in .venv, made on first use with any Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-versions test-interop test-interop-choria check bench docs clean

$(VENV)/.installed: pyproject.toml nats-server.conf.j2
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## the whole system on this machine, real servers, real TLS
	$(BIN)/broker-auth demo

test: $(VENV)/.installed check  ## types, style, and every test
	$(BIN)/pytest -n auto

test-interop: $(VENV)/.installed  ## tokens both ways with Choria's own code; needs Go, and says what it had to skip
	INTEROP=1 $(BIN)/pytest tests/interop

test-interop-choria: $(VENV)/.installed  ## the same, with a Choria built from its released module; takes minutes the first time
	cd tests/interop/choria && CGO_ENABLED=0 go build -mod=readonly -o $(CURDIR)/$(VENV)/choria .
	INTEROP=1 CHORIA=$(CURDIR)/$(VENV)/choria CHORIA_SERVER=$(CURDIR)/$(VENV)/choria $(BIN)/pytest tests/interop

test-versions: $(VENV)/.installed  ## the server's facts and the whole system on every supported nats-server; some minutes
	$(BIN)/python -m tests.servers

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed  ## what a decision, a request and a connection cost on this machine
	$(BIN)/broker-auth bench

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
