# Builds its own virtual environment; needs Python 3.11 or later, GNU make 3.81 or later, and any sh.

VENV = .venv
# Empty: the first of python3, python3.13, python3.12, python3.11 that is recent enough.
PYTHON =
PYTEST_ARGS =
# Many tests wait for something, so one more than there are processors. 0: one after the other.
TEST_WORKERS = 3
SOAK_SECONDS = 300
SOAK_ARGS =
BENCH_ARGS =

IN_VENV = $(VENV)/bin/python
# The Azure Functions platform's worker code, for tests; the file says why it is a case of its own.
FUNCTIONS_RUNTIME = tests/functions_host/requirements.txt
PIP_INSTALL = $(IN_VENV) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test chaos soak bench bench-quick lint format clean

help: ## Show what make can do.
	@echo 'Reliable streaming for durable agents.'
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo
	@echo '  HOST=0.0.0.0 PORT=8080 make run     any setting is an environment variable'
	@echo '  make test PYTEST_ARGS="-k resume"   arguments for pytest'
	@echo '  make soak SOAK_SECONDS=60           a shorter soak; SOAK_ARGS="--help" shows what else it takes'
	@echo '  make bench BENCH_ARGS="--only live" only some cases; BENCH_ARGS="--help" shows what else it takes'
	@echo '  make PYTHON=python3.12 run          another Python (after: make clean)'

run: $(VENV)/.stamp-run ## Start the service on http://127.0.0.1:7071; Ctrl-C stops it.
	@exec $(IN_VENV) -m standalone

test: $(VENV)/.stamp-dev ## Run all tests, with a real Redis that they start themselves.
	@$(IN_VENV) -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

chaos: $(VENV)/.stamp-dev ## Run the longer forms of the fault tests too (some minutes).
	@$(IN_VENV) -m pytest -m 'long or not long' tests/chaos tests/topologies tests/integration tests/clients tests/chat $(PYTEST_ARGS)

soak: $(VENV)/.stamp-dev ## Inflict faults on a service under load, and check every answer (5 minutes).
	@$(IN_VENV) -m soak --seconds $(SOAK_SECONDS) $(SOAK_ARGS)

bench: $(VENV)/.stamp-bench ## Measure speed and cost beside floors, naive designs and peers (15 minutes; Linux).
	@$(IN_VENV) -m benchmarks $(BENCH_ARGS)

bench-quick: $(VENV)/.stamp-bench ## The same, shorter and with smaller sizes (about two minutes).
	@$(IN_VENV) -m benchmarks --plan quick $(BENCH_ARGS)

lint: $(VENV)/.stamp-dev ## Check style, format, types, sizes and import directions.
	@$(IN_VENV) -m ruff check .
	@$(IN_VENV) -m ruff format --check .
	@$(IN_VENV) -m mypy
	@$(IN_VENV) -m pytest --quiet tests/architecture

format: $(VENV)/.stamp-dev ## Format the code and fix what can be fixed safely.
	@$(IN_VENV) -m ruff format .
	@$(IN_VENV) -m ruff check --fix .

clean: ## Remove the virtual environment and the caches; kept streams (.data) stay.
	rm -rf $(VENV) .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ── The virtual environment ──────────────────────────────────────────────────────────────────────────
# A stamp is newer than what it was made from, or is made again; so a second start calls no pip.

$(VENV)/.stamp-run: $(VENV)/.stamp-venv requirements.txt
	@echo 'Installing what runs (once, about half a minute) …'
	@$(PIP_INSTALL) -r requirements.txt || { $(EXPLAIN_PIP); exit 1; }
	@touch $@

# The development requirements include those of the run.
REQUIREMENTS = requirements.txt requirements-azure-ai-agents.txt requirements-clients.txt requirements-inspector.txt \
  requirements-telemetry.txt \
  requirements-dev.txt
$(VENV)/.stamp-dev: $(VENV)/.stamp-venv $(REQUIREMENTS) $(FUNCTIONS_RUNTIME)
	@echo 'Installing what the tests and checks need (once, about half a minute) …'
	@$(PIP_INSTALL) -r requirements-dev.txt || { $(EXPLAIN_PIP); exit 1; }
	@$(PIP_INSTALL) --no-deps --ignore-requires-python -r $(FUNCTIONS_RUNTIME) || { $(EXPLAIN_PIP); exit 1; }
	@touch $(VENV)/.stamp-run $@

# The peers of the bench are no part of it: it installs them itself, into .bench.
$(VENV)/.stamp-bench: $(VENV)/.stamp-venv requirements.txt requirements-bench.txt
	@echo 'Installing what the bench needs (once, about half a minute) …'
	@$(PIP_INSTALL) -r requirements-bench.txt || { $(EXPLAIN_PIP); exit 1; }
	@touch $(VENV)/.stamp-run $@

EXPLAIN_PIP = echo 'The packages could not be installed (see above). Is the package index reachable?' \
	'Where a package has no build for your Python: make clean, then make PYTHON=python3.13 ...' >&2

$(VENV)/.stamp-venv:
	@python=''; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  found=`$(or $(PYTHON),python3) --version 2>&1` || found='none'; \
	  echo "Python 3.11 or later is needed; $(or $(PYTHON),python3) is: $$found." \
	    'Install one and name it: make PYTHON=python3.13 ...' >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python can't make virtual environments: its venv or ensurepip module is missing." \
	    'On Debian and Ubuntu: sudo apt install python3-venv' >&2; \
	  exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)
	@touch $@
