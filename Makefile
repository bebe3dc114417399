# Two commands for a newcomer: `make demo` and `make test`. Everything they need is made in .venv; nothing else on the machine changes.

PYTHON ?= python3
VENV   := .venv
BIN    := $(CURDIR)/$(VENV)/bin
SHOP   := examples/shop
PHASES ?= init setup build test validate
INPUTS ?= 100000
# What a kernel without Landlock cannot hold; the shop's file lets go of the same rules. `make demo DEGRADED=1` runs there, and says so.
UNHELD := filesystem.secrets filesystem.write process.visibility
LET_GO  = $(if $(DEGRADED),$(foreach rule,$(UNHELD),--allow-degraded $(rule)))
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo jaeger ggen peers fixture-peers test check format lint types layers docs bench fuzz setup setup-dev shop locks shim clean

help:  ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/' | column -t -s: 2>/dev/null || true

demo: setup shop  ## run the example project's lifecycle hermetically, with a real PostgreSQL and a real Valkey
	cd $(SHOP) && $(BIN)/cleanroom-engine pipeline $(PHASES) $(LET_GO)

jaeger: setup-dev shop  ## run the demo with its traces in a real Jaeger on the loopback
	cd $(SHOP) && PATH="$(BIN):$$PATH" $(BIN)/python $(CURDIR)/scripts/jaeger.py cleanroom-engine pipeline $(PHASES)

ggen:  ## the real ggen 1.2.0 that the tests run beside the engine: found, or built from its crate (40 minutes)
	$(PYTHON) scripts/ggen.py

peers:  ## what the benchmark of containers measures beside the product: testcontainers-python in a venv of its own, Docker Compose built with Go
	$(PYTHON) scripts/peers.py

fixture-peers: setup-dev  ## what docs/fixtures.md is compared with, for the tests of that page: .venv/fixture-peers
	[ -e $(VENV)/fixture-peers ] || $(PIP) install --require-hashes --only-binary :all: --target $(VENV)/fixture-peers -r requirements/fixture-peers.txt

test: setup-dev shop  ## run the tests
	$(BIN)/python -m pytest -n 2 $(TESTS)

check: format lint types layers docs test  ## run all gates

format: setup-dev
	$(BIN)/ruff format --no-cache --check src tests bench examples scripts

lint: setup-dev
	$(BIN)/ruff check --no-cache src tests bench examples scripts

types: setup-dev
	$(BIN)/mypy

layers: setup-dev
	$(BIN)/lint-imports --no-cache

docs: setup-dev  ## generated documents say what the code says
	$(BIN)/python scripts/generated_docs.py --check

bench: setup shop  ## measure, and print each number beside its target
	$(BIN)/python -m bench

fuzz: setup-dev  ## feed the product hostile inputs, and write the counts into docs/robustness.md
	$(BIN)/python scripts/fuzz.py --inputs $(INPUTS) --write

setup: $(VENV)/.run

setup-dev: $(VENV)/.dev

shop: $(SHOP)/.venv/.done

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) has no venv module (on Debian: apt install python3-venv)"; exit 2; }

$(VENV)/.run: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	$(PIP) install --require-hashes --only-binary :all: -r requirements/run.txt
	PATH="$(BIN):$$PATH" $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

$(SHOP)/.venv/.done: $(SHOP)/requirements.txt
	$(PYTHON) -m venv $(SHOP)/.venv
	$(SHOP)/.venv/bin/python -m pip --quiet --disable-pip-version-check --no-input install --require-hashes --only-binary :all: -r $<
	@touch $@

locks: setup-dev  ## pin dependencies again, by hash and without addresses
	$(BIN)/uv pip compile pyproject.toml requirements/build.in --extra embedded --extra otlp --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -q -o requirements/run.txt
	$(BIN)/uv pip compile pyproject.toml requirements/build.in --extra embedded --extra docker --extra otlp --extra otlp-grpc --group dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -q -o requirements/dev.txt
	echo 'testcontainers[redis]==4.15.0' | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -q -o requirements/peers.txt
	printf '%s\n' pytest-databases==0.19.0 pytest-postgresql==10.0.0 pytest-xdist 'psycopg[binary]' redis valkey | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -q -o requirements/fixture-peers.txt

shim: setup  ## build pid 1 of containers by hand, which the container backends do on demand
	$(BIN)/python -m cleanroom.sandbox.shim.build build

clean:  ## remove what the targets above made
	rm -rf $(VENV) $(SHOP)/.venv $(SHOP)/.ggen build
