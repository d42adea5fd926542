# Two commands matter: `make demo` streams an answer, `make test` runs every check.
# Both set everything up by themselves in .venv; they need Python 3.11+ and a package registry, nothing else.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUN := $(BIN)/python -m

.DEFAULT_GOAL := help
.PHONY: help demo test check format lint types imports tests unit docs node ray bench page pictures soak live models lock clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# Tests start the package in many processes, each of which would compile it again.
unexport PYTHONDONTWRITEBYTECODE

# Test processes: two more than there are cores, because the tests wait for more than half of their time. `WORKERS=0` runs
# all tests in one process, for a debugger.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 2)
# A process without tests takes some that another one has not started, so that all end together.
PYTEST := $(RUN) pytest -n $(WORKERS) --dist worksteal
# GNU Make 4 shows the output of each check in one piece.
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

PIP := $(RUN) pip install -qq --disable-pip-version-check

.venv/.installed: requirements/run.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "LM Deluge needs Python 3.11 or newer: install one, or run make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON)" >&2
	@$(PYTHON) -m venv --clear .venv || { echo "$(PYTHON) has no working venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.ready: .venv/.installed requirements/dev.txt
	@echo "adding the tools for development" >&2
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

demo: .venv/.installed  ## set up and stream an answer (no key and no network needed)
	@$(BIN)/deluge stream -m simulator "What can you do?"

test: check  ## set up and run every check
# The first two take seconds. The others run at the same time, because the tests leave cores idle.
check: format lint
	@$(MAKE) --no-print-directory -j3 $(SYNC) types imports tests

format: .venv/.ready  ## the code is formatted
	@$(RUN) ruff format --check --quiet . || { echo "run: .venv/bin/ruff format ." >&2; exit 1; }

lint: .venv/.ready  ## ruff, with every rule on
	@$(RUN) ruff check --quiet .

types: .venv/.ready  ## mypy --strict and basedpyright
	@$(RUN) mypy --no-error-summary
	@$(BIN)/basedpyright --level error

imports: .venv/.ready  ## the layers of the package
	@$(BIN)/lint-imports --no-cache | grep -v '^$$' | tail -n 25

node: .venv/npm/node/.installed  ## install the Node clients that the gateway and the pages are tested with (needs npm)

.venv/npm/node/.installed: .venv/.ready tests/gateway/node/package.json tests/gateway/node/package-lock.json
	@mkdir -p $(@D)
	@cp tests/gateway/node/package.json tests/gateway/node/package-lock.json $(@D)
	@npm ci --prefix $(@D) --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

ray: .venv/ray/.installed  ## install Ray in an environment of its own, and run its tests (500 MB)
	@DELUGE_REQUIRE=ray $(RUN) pytest -s tests/ray

.venv/ray/.installed: .venv/.ready requirements/ray.txt
	@$(BIN)/python -m venv --clear .venv/ray
	@.venv/ray/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/ray.txt
	@touch $@

# A `+` shows the output of the tests as it comes.
tests: .venv/.ready  ## the tests and the examples of the documentation
	@test -e .venv/ray/.installed || echo "skipping the tests with Ray: make ray installs it" >&2
	@test -e .venv/npm/node/.installed || echo "skipping the Node clients of the gateway: make node installs them" >&2
	+@$(PYTEST)

unit: .venv/.ready  ## tests, those of the documentation excepted
	@$(PYTEST) --ignore=tests/docs

docs: .venv/.ready  ## every example of the documentation runs
	@$(PYTEST) tests/docs

bench: .venv/.ready  ## speed, as ratios against something run beside it
	@$(RUN) bench

page: .venv/.ready  ## compare with other clients, and write docs/performance.md (half an hour; installs them)
	@$(PIP) matplotlib==3.11.2
	@$(RUN) bench.page

pictures: .venv/.ready  ## make the pictures of the README again (needs Chromium)
	@$(BIN)/python scripts/pictures/make.py

soak: .venv/.ready  ## long: many more abandoned streams, every cut of every recording, deeper fuzzing
	@DELUGE_SOAK=1 $(RUN) pytest tests

live: .venv/.ready  ## opt-in: one call per provider whose key is set
	@$(RUN) pytest -s -m live tests/live

LOCK := $(RUN) uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-strip-extras --quiet

models: .venv/.ready  ## fetch newer models and prices, and show what changed (needs npm)
	@$(BIN)/python scripts/refresh_models.py

lock: .venv/.ready  ## choose the newest allowed versions again
	@$(PIP) uv
	@$(LOCK) --upgrade -o requirements/dev.txt requirements/dev.in requirements/run.in pyproject.toml
	@$(LOCK) --constraints requirements/dev.txt -o requirements/run.txt requirements/run.in pyproject.toml
	@$(LOCK) --constraints requirements/dev.txt -o requirements/ray.txt requirements/ray.in pyproject.toml

clean:  ## remove everything that was set up
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
