# The two commands: `make demo` and `make test`. Everything runs in .venv, nothing
# is installed outside this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
PORT ?=
DAYS ?=
DROP ?=

comma := ,
space := $(subst ,, )
slim_selection = --select state:modified+ --defer --state $(CURDIR)/build/$(1) --target-path $(CURDIR)/build/slim_target

export DAGSTER_DISABLE_TELEMETRY := yes
export DO_NOT_TRACK := 1
# Where it is set, every process compiles what it imports again: 4 s of the 12 that loading the graph takes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-full test-all dev docs slim-state slim critical full-refresh snowflake-build snowflake-slim snowflake-drop lint format fuzz powerbi snowflake-plans parity bench chaos bench-collector bench-day bench-warehouse kafka-up kafka-down clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## The virtual environment, from the committed constraints

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11 to 3.13 is needed; $$($(PYTHON) --version) is '$(PYTHON)'. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV) from constraints.txt ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -c 'from ingestion.collector.decode import compile_scanner; compile_scanner()'
	@touch $@

demo: install ## The whole platform once, headless (DATA=folder for real input)
	@$(BIN)/petwellness demo $(if $(DATA),--data "$(DATA)")

test: install ## The default test suite; needs nothing running
	@$(BIN)/python -m pytest

test-fast: install ## Unit tests: no process started, nothing waited for
	@$(BIN)/python -m pytest -n logical tests/unit

test-full: install ## The suite with every test in its full size
	@$(BIN)/python -m pytest -m ""

test-all: ## All there is in its full size: the suite, chaos, parity, fuzz; hours, so at night and before a release
	@$(MAKE) test-full
	@$(MAKE) chaos
	@$(MAKE) parity
	@$(MAKE) fuzz

dev: install ## The Dagster UI on 127.0.0.1:3000 with a live fleet; Ctrl-C stops all of it
	@$(BIN)/petwellness dev

docs: install ## dbt's documentation on http://127.0.0.1:8080; Ctrl-C stops it
	@$(BIN)/dbt --quiet docs generate --empty-catalog --target lint --project-dir dbt_project --profiles-dir dbt_project --target-path ../build/dbt_docs
	@echo "http://127.0.0.1:8080 has the documentation of models, macros, metrics and exposures"
	@$(BIN)/python -m http.server 8080 --bind 127.0.0.1 --directory build/dbt_docs

slim-state: install ## What `make slim` compares with: manifest and warehouse of the last demo, to build/slim_state
	@mkdir -p build/slim_state
	@cp dbt_project/target/embedded/manifest.json .petwellness/warehouse.duckdb build/slim_state/

slim: install ## Only dbt models that differ from build/slim_state, and what reads them, on a copy of its warehouse
	@mkdir -p build/slim_home && cp build/slim_state/warehouse.duckdb build/slim_home/
	@PETWELLNESS_HOME=build/slim_home $(BIN)/petwellness dbt build $(call slim_selection,slim_state); \
		status=$$?; rm -rf build/slim_home; exit $$status

critical: install ## dbt tests tagged critical, on every day or on DAYS="2026-06-01 2026-06-02"
	@$(BIN)/petwellness dbt test --select tag:critical --target-path $(CURDIR)/build/critical_target \
		$(if $(DAYS),--vars '{"dirty_days": [$(subst $(space),$(comma),$(patsubst %,"%",$(strip $(DAYS))))]}')

full-refresh: install ## Every day and model again, every check, then the warehouse from the lake and compared
	@$(BIN)/petwellness build --full-refresh
	@$(BIN)/petwellness check
	@$(BIN)/petwellness rebuild --yes --compare

snowflake-build: install ## The layers of the environment on Snowflake, whole; what pull requests compare with, to build/snowflake_state
	@$(BIN)/petwellness dbt build --full-refresh --exclude-resource-type unit_test --target-path $(CURDIR)/build/snowflake_target
	@mkdir -p build/snowflake_state && cp build/snowflake_target/manifest.json build/snowflake_state/

snowflake-slim: install ## As slim, into the schema of PETWELLNESS_PULL_REQUEST on Snowflake
	@$(BIN)/petwellness dbt build --full-refresh --exclude-resource-type unit_test $(call slim_selection,snowflake_state)

snowflake-drop: install ## What is in the schema of PETWELLNESS_PULL_REQUEST, or (DROP=yes) drop it
	@$(BIN)/petwellness dbt run-operation drop_schemas --target-path $(CURDIR)/build/snowflake_target \
		--args '{"schemas": ["pr_$(PETWELLNESS_PULL_REQUEST)"], "dry_run": $(if $(filter yes,$(DROP)),false,true)}'

lint: install ## ruff, which room imports which, mypy and sqlfluff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo --cache-dir build/import_linter
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint dbt_project/models dbt_project/tests dbt_project/analyses

format: install ## Put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install ## Benchmarks, to verification/benchmarks/results/latest.json
	@$(BIN)/python -m verification.benchmarks

bench-collector: install ## The collector on Apache Kafka: against a naive loop, its encoder and peers
	@$(BIN)/python -m verification.benchmarks.collector

bench-day: install ## A simulated day through Kafka, collector and compaction (DEVICES=50000)
	@$(BIN)/python -m verification.benchmarks.day --devices $(or $(DEVICES),50000)

bench-warehouse: install ## A whole day, increments on short and long histories, readers (DEVICES=1000 DAY_DEVICES=50000)
	@$(BIN)/python -m verification.benchmarks.warehouse --devices $(or $(DEVICES),1000) --day-devices $(or $(DAY_DEVICES),50000)

snowflake-plans: install ## What each environment's Snowflake account would get, to infrastructure/snowflake/plans
	@for name in dev ci prod; do $(BIN)/python -m infrastructure.snowflake plan $$name --offline --save || exit 1; done

parity: install ## The same lake on DuckDB and on a Snowflake emulator, every table compared; to build/parity.json (COLLARS=12)
	@$(BIN)/python -m verification.parity $(if $(COLLARS),--collars "$(COLLARS)")

chaos: install ## Kill, freeze and cut off collectors at every step, then look for every record; to build/chaos.json
	@$(BIN)/python -m verification.chaos

kafka-up: install ## Apache Kafka on 127.0.0.1, by Java and Maven (PORT=9092); jars are cached in the home folder
	@$(BIN)/python -m infrastructure.kafka up $(if $(PORT),--port "$(PORT)")

kafka-down: install ## Stop it; its data stay in build/kafka
	@$(BIN)/python -m infrastructure.kafka down

fuzz: install ## A million fuzzed messages against the strict reference, to build/fuzz.json
	@$(BIN)/python -m verification.fuzz

powerbi: install ## The Power BI project, from the dbt manifest
	@$(BIN)/python -m powerbi

clean: ## Remove state, build output and the virtual environment
	@test ! -e build/kafka/kafka.json || $(BIN)/python -m infrastructure.kafka down
	rm -rf .petwellness build $(VENV) dbt_project/target dbt_project/logs
