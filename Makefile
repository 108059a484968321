# The verbs of this repository; `make` alone lists them. all but clean do their own set-up.
SHELL := /bin/bash
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types arrows tidy generated collected coverage sanitize rest servers ext bench bench-failover bench-consensus chaos soak sim mutants fuzz pins clean sim-ha

export PYTHON
BIN := .venv/bin
CODE := src tests tools $(wildcard bench)
FAST := tests/unit $(wildcard tests/scenarios)
JOBS := 2
MINUTES := 10
NODES := 3
SECONDS := 60

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

setup: ## make .venv with ramd and ramctrl, once (PYTHON= names another interpreter)
	@tools/setup.sh

demo: setup ## a real three-node cluster loses its primary, then a node (KEEP=1 leaves it running)
	@$(BIN)/python -m tools.demo

test: setup ## the tests, without soak and benchmarks
	$(BIN)/pytest -q -n $(JOBS)

check: setup lint types arrows tidy generated servers collected coverage rest ## everything CI runs

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict
	$(BIN)/mypy --strict $(CODE)

arrows: setup ## import-linter: which room may see which
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter

tidy: setup ## budgets, words and documents
	$(BIN)/python -m tools.tidy

generated: setup ## page_layout.h is what pgraft/page/layout.py says
	$(BIN)/python -m pgraft.page.layout --check

ext: setup ## build the extension for every server here that has headers (ramd does it by itself, too)
	@$(BIN)/python -m tools.ext

sanitize: setup ## the extension's tests with the sanitizers for address and undefined behaviour in it
	RAMD_TEST_SANITIZE=1 $(BIN)/pytest -q tests/extension

collected: setup ## `make test` finds every test in one run, which the two halves below do not show
	@$(BIN)/pytest -qq --collect-only >.cache/collected || { tail -n 40 .cache/collected; exit 1; }

coverage: setup ## unit and scenario tests; the pure rooms to the last branch
	$(BIN)/pytest -q -n $(JOBS) --cov --cov-report=term $(FAST)

rest: setup ## the tests that `coverage` leaves out
	$(BIN)/pytest -q -n $(JOBS) $(FAST:%=--ignore=%)

servers: setup ## more major versions of PostgreSQL and their headers, where they can be had
	@tools/debian_postgresql.sh
	@tools/server_headers.sh

bench: setup ## measure outages, the promote floor, and what idle daemons cost
	$(BIN)/python -m bench.failover --stacks ramd --faults server-crash,node-killed,switchover
	$(BIN)/python -m bench.fence --runs 5 --host-runs 1
	$(BIN)/python -m bench.cost
	$(BIN)/python -m bench.idle

bench-failover: setup ## RAMD beside Patroni (installed into .cache; etcd-server too if root), hours
	$(BIN)/python -m bench.failover

bench-consensus: setup ## pgraft against Debian's etcd-server (installed if root), in one run
	$(BIN)/python -m bench.consensus

chaos: setup ## random faults under load for MINUTES=, nothing acknowledged may be lost (SEED=n, NODES=5; docs/chaos.md)
	@$(BIN)/python -m bench.chaos --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED))

soak: setup ## servers and nodes killed one after another for MINUTES= minutes: outages without overlap
	@$(BIN)/python -m bench.chaos --soak --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED))

sim: setup ## try to break the consensus: SEED= one run, MINUTES= as many as fit (docs/simulation.md)
	$(BIN)/python -m tools.sim $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS)) \
	  $(if $(filter-out file,$(origin MINUTES)),--minutes $(MINUTES)) \
	  $(if $(WAL),--wal $(WAL)) $(if $(CHAOS),--chaos $(CHAOS))

mutants: setup ## put known bugs into pgraft, one at a time: the simulation must notice each
	$(BIN)/python -m tools.mutants $(MUTANT)

sim-ha: setup ## try to break failover on a simulated cluster (SEED=n one run, MINUTES=m)
	@$(BIN)/python -m tools.sim_ha $(if $(SEED),--seed $(SEED),--minutes $(MINUTES))

fuzz: setup ## damaged bytes at everything that reads from the peer port, for SECONDS= seconds
	$(BIN)/python -m tools.fuzz_wire --seconds $(SECONDS) --seed $$RANDOM

pins: setup ## resolve requirements/*.txt again, within pyproject.toml
	$(BIN)/python -m venv --clear .cache/pins
	.cache/pins/bin/python -m pip -qq install pip-tools
	set -e; compile=".cache/pins/bin/pip-compile -q -U --no-emit-index-url --no-emit-find-links \
	  --no-header --strip-extras --allow-unsafe"; \
	$$compile -o requirements/runtime.txt pyproject.toml; \
	$$compile --extra dev --extra embedded -c requirements/runtime.txt -o requirements/dev.txt pyproject.toml

clean: ## back to a fresh clone: .venv, caches, results
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis build dist bench/results
	find src tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
