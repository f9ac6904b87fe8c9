# Everything runs in .venv, made by uv; uv itself is fetched by pip into .tools where it is not installed.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
RUN := $(UV) run --no-sync
PYTEST := $(RUN) pytest
# Tests mostly wait, for brokers above all: two processes, each with brokers of its own, take little more than half the time.
TOGETHER := -n 2 --dist worksteal

.PHONY: setup models demo test test-faults test-all check unit integration faults e2e soak format explore bench bench-quick bench-profile bench-experiments bench-report clean

.tools/bin/uv:
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check uv

.venv/.synced: pyproject.toml uv.lock $(wildcard */pyproject.toml deploy/*/pyproject.toml) | $(filter .tools/bin/uv,$(UV))
	$(UV) sync --frozen --compile-bytecode --python $(PYTHON)
	touch $@

setup: .venv/.synced ## the virtual environment with everything in it

demo: setup ## a real broker, real models, a burst of requests
	$(RUN) forebay-local demo

check: setup ## format, lint, types, unit tests
	$(RUN) ruff format --check
	$(RUN) ruff check
	$(RUN) mypy
	$(PYTEST) -q $(TOGETHER) tests/unit

models: setup ## the small models that tests and demo serve; trained here the first time
	$(RUN) forebay-local models

test: check models ## all that needs nothing but the broker, in its small size
	$(PYTEST) -q $(TOGETHER) -m "not slow and not long and not tools" tests/integration tests/faults tests/e2e

test-faults: setup ## every row of docs/faults.md, at full length
	$(PYTEST) -q tests/faults
	$(PYTEST) -q -k row_ tests/integration

test-all: check models ## all there is, but for what only goes on for longer; what lacks its tool is skipped by name
	$(PYTEST) -q $(TOGETHER) -m "not long" tests/integration tests/faults tests/e2e

unit integration faults e2e: setup
	$(PYTEST) -q tests/$@

MINUTES ?= 10
SEED ?= 1
MODE ?= at-least-once
PROTOCOL ?= classic
WITHOUT ?=

explore: setup ## the properties with 2,500 examples each, other ones in every run: some minutes
	$(PYTEST) tests/unit -m hypothesis -n 2 --hypothesis-profile explore

soak: setup ## random faults over a mixed load, and a verdict: MINUTES=n SEED=s MODE=m WITHOUT="poison cut"
	PYTHONPATH=tests $(RUN) python -m soak --minutes $(MINUTES) --seed $(SEED) --mode $(MODE) --protocol $(PROTOCOL) $(addprefix --without ,$(WITHOUT))

bench-quick: setup ## the worker against bare loops, at most 5 minutes
	$(RUN) python -m bench.quick

bench-profile: setup ## docs/performance/messages.svg: where the worker's time goes, as a flame graph
	$(RUN) python -m bench.flame

BENCH ?=

bench: setup ## everything side by side, over an hour: BENCH="--peers forebay,naive --loads T1 --repeats 1 --scale 0.2"
	$(RUN) python -m bench.run $(BENCH)
	$(MAKE) bench-report

bench-experiments: setup ## the sources' own experiments, each a small table
	$(RUN) python -m bench.experiments $(BENCH)
	$(MAKE) bench-report

bench-report: setup ## docs/performance.md and its plots, of the figures last made
	$(UV) sync --frozen --inexact --group bench
	$(RUN) python -m bench.report

format: setup
	$(RUN) ruff format
	$(RUN) ruff check --fix

clean: ## everything that setup made, but for the caches in your home folder
	rm -rf .venv .tools bench/.venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis
