# Every command a person or a machine runs here. `make help` lists them.
# ARGS go to the command behind: `make demo ARGS='--port 8090'`, `make test ARGS='-k demo'`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := plugins/aforo-standard

.DEFAULT_GOAL := help
.PHONY: help demo demo-reset test check format schema schema-check sdk bench chaos serve worker docs graphiql lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/.demo: requirements/demo.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Aforo needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/demo.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . $(addprefix -e ,$(PLUGINS))
	@touch $@

$(BIN)/.dev: requirements/dev.lock $(BIN)/.demo
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

demo: $(BIN)/.demo ## start everything on embedded engines with a month of believable usage
	@$(BIN)/aforo demo $(ARGS)

demo-reset: $(BIN)/.demo ## start the demo over, without its old data
	@$(BIN)/aforo demo --reset $(ARGS)

test: $(BIN)/.dev ## the whole suite on real engines, as two processes with engines of their own
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

check: $(BIN)/.dev ## format, lint, types, contracts, dependencies
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=plugins/aforo-example $(BIN)/lint-imports --no-cache
	@$(BIN)/deptry .
	@$(BIN)/aforo schema check

format: $(BIN)/.dev ## write the code as `make check` wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

schema: $(BIN)/.dev ## write schema.graphql and the list of its changes from the code
	@$(BIN)/aforo schema > schema.graphql
	@$(BIN)/aforo schema changelog > docs/schema/changelog.md
	@$(BIN)/aforo schema events > docs/schema/webhook-events.json

schema-check: $(BIN)/.dev ## refuse a breaking change of the schema that CHANGELOG.md does not declare
	@$(BIN)/aforo schema check

sdk: $(BIN)/.dev ## write the surface of the SDK and the table of its versions
	@$(BIN)/python -m tests.sdk.surface

bench: $(BIN)/.dev ## measure, each figure beside its limit
	@$(BIN)/python -m benchmarks

chaos: $(BIN)/.dev ## kill it 2,000 times at named points, and everything at once 20 times
	@AFORO_TEST_KILLS_PER_POINT=200 AFORO_TEST_KILLS_OF_EVERYTHING=20 \
	  $(BIN)/python -m pytest --timeout 0 tests/metering/test_durability.py

serve: $(BIN)/.demo ## the API alone, on AFORO_*_URL
	@$(BIN)/aforo serve

worker: $(BIN)/.demo ## the worker alone, on AFORO_*_URL
	@$(BIN)/aforo worker

docs: $(BIN)/.dev ## check the manual's links and examples
	@$(BIN)/python -m pytest tests/test_docs.py

graphiql: ## build the GraphQL page again, after a change in console/ (needs Node 20)
	@cd console/graphiql && npm ci --ignore-scripts --no-fund --no-audit && npm run -s build

lock: $(BIN)/.dev ## pin every dependency again
	@for target in server: demo:embedded dev:embedded; do \
	  name=$${target%%:*}; extra=$${target#*:}; group=; \
	  test $$name = dev && group="--group dev --extra kafka"; \
	  $(BIN)/uv pip compile -q pyproject.toml $${extra:+--extra $$extra} $$group --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements/$$name.lock || exit 1; \
	done

clean: ## remove what the commands made
	@rm -rf $(VENV) .aforo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info plugins/*/*.egg-info
