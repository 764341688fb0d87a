# Two commands are enough: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
READY := $(VENV)/.ready

.PHONY: help setup demo test slow lint format bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(READY) ## make the virtual environment

# torch first and by itself: pip then takes the build that the constraints name, whatever other packages ask for.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: setup ## the whole job on real footage: curate, shards, tokenizer, latents, DiT, report (in $(DEMO)/)
	$(BIN)/rushes demo --out $(DEMO)

test: setup ## run the tests
	$(BIN)/pytest -q --durations=12 -n 2 --dist loadfile --no-loadscope-reorder

slow: setup ## run the tests that take minutes: trainings by several processes, runs killed in every stage
	$(BIN)/pytest -q -m slow --durations=5 tests

# mypy wants to find the folders under the names they are imported by.
lint: setup ## check format, style and types
	@mkdir -p $(VENV)/typed/rushes
	@for room in filters pipelines tokenizer dit; do ln -sfn "$(CURDIR)/$$room" $(VENV)/typed/rushes/$$room; done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format the code
	$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

bench: setup ## measure: scan speed and memory, ratios in one run
	$(BIN)/pytest -q -m bench -s tests/bench

clean: ## remove the virtual environment and the demo
	rm -rf $(VENV) $(DEMO)
