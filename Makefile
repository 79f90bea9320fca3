# `make demo` and `make test` go from a bare clone to the end with nothing but Python 3.11 or newer and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST_ARGS ?=

# A stamp per set of extras, older than pyproject.toml only when the dependencies changed: a second run installs nothing.
DEV_STAMP  := $(VENV)/.installed-dev
DEMO_STAMP := $(if $(wildcard $(DEV_STAMP)),$(DEV_STAMP),$(VENV)/.installed-worker)

.DEFAULT_GOAL := help
.PHONY: help demo serve test check lock format bench soak chaos fuzz-media fuzz-api load demo-backbone second-backbone demo-experts clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_STAMP) ## summarize the shipped sample clips through the whole service, then stop
	@$(BIN)/python -m visum.demo

serve: $(DEMO_STAMP) ## gateway, queue and worker on this machine until Ctrl-C
	@$(BIN)/visum serve

test: $(DEV_STAMP) ## all tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(DEV_STAMP) ## lint, import graph, Dockerfiles, compose file, known vulnerabilities
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/hadolint docker/*.Dockerfile
	@$(BIN)/python docker/check.py
	@$(BIN)/python docker/audit.py

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --upgrade --custom-compile-command "make lock"
lock: $(DEV_STAMP) ## pin what goes into the images, by hash, anew
	@$(LOCK) docker/requirements-build.in --output-file docker/requirements-build.lock
	@$(LOCK) pyproject.toml --output-file docker/requirements-gateway.lock
	@$(LOCK) pyproject.toml --extra worker --output-file docker/requirements-worker.lock

format: $(DEV_STAMP) ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(DEV_STAMP) ## measure speed beside its goals on this machine, into benchmarks/results/latest.json and .md
	@$(BIN)/python -m benchmarks

soak: $(DEV_STAMP) ## half an hour of the whole service at saturation, and whether anything leaks (Linux)
	@$(BIN)/python -m benchmarks.soak --minutes 30

chaos: $(DEV_STAMP) ## ten minutes of killed, paused and restarted parts, and whether a job was lost (Linux)
	@$(BIN)/python -m resilience.chaos --minutes 10

fuzz-media: $(DEV_STAMP) ## ten thousand damaged videos and hand-made attacks through the decoder, a few minutes (Linux)
	@$(BIN)/python -m resilience.media

fuzz-api: $(DEV_STAMP) ## the whole OpenAPI document and a state machine against the running service, keys asked for
	@$(BIN)/python -m resilience.api

load: $(DEV_STAMP) ## submit and poll beside a bare endpoint, 100,000 records, crowds, memory (Linux)
	@$(BIN)/python -m resilience.load

demo-backbone: $(DEV_STAMP) ## train the demo backbone again, from nothing
	@$(BIN)/python -m training.backbone --out runs/demo-backbone --clips 58205

second-backbone: $(DEV_STAMP) ## train a backbone of VideoLLaMA2's shape, which `visum ablate architectures` compares with
	@$(BIN)/python -m training.backbone --architecture videollama2 --out runs/second-backbone --clips 58205

demo-experts: $(DEV_STAMP) ## train the four shipped experts again on the frozen demo backbone
	@$(BIN)/python -m training.experts --out runs/demo-adapters

clean: ## remove the virtual environment and the caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ViSum needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; } # a half-made one would be taken for whole

$(VENV)/.installed-worker: pyproject.toml | $(BIN)/python
	@echo "Installing ViSum into $(VENV) (a few minutes the first time, most of it torch)"
	@PYTHON=$(BIN)/python sh .ci/install '.[worker]'
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing ViSum with its development tools into $(VENV)"
	@PYTHON=$(BIN)/python sh .ci/install '.[dev]'
	@touch $@
