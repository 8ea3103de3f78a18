# `make` runs what a change must pass, `make demo` shows what the project does; `make help` lists the rest.
# Everything is installed into .venv, from the versions in constraints.txt.

SHELL := /bin/bash
.DEFAULT_GOAL := check

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The demo has to be quick to install, so the tools of the developers come with the second set only.
DEMO_EXTRAS := cpu,demo
DEV_EXTRAS := cpu,demo,dev,evaluation,heif,languages,otel,train
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev

COMPACT := bundles/compact

.PHONY: check demo test lint format venv datastore docker docker-verify clean distclean help

check: lint test  ## lint, then test (what plain `make` does)

demo: $(DEMO_STAMP)  ## caption sample photos in every language and write demo/index.html
	@$(BIN)/python -m app.commands.demo

# Processes with a thread each: most tests are too small to share among threads, which only wait for each other.
TEST_PROCESSES ?= 2

test: $(DEV_STAMP)  ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

lint: $(DEV_STAMP)  ## check style, types and that docs/cli.md and docs/errors.md are current
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m app.commands.reference | diff -u docs/cli.md - \
		|| { echo "error: docs/cli.md is not current: make format" >&2; exit 1; }
	@PYTHONPATH=tests $(BIN)/python -m hostile.errors_page | diff -u docs/errors.md - \
		|| { echo "error: docs/errors.md is not current: make format" >&2; exit 1; }

format: $(DEV_STAMP)  ## put style right where a program can, and write docs/cli.md and docs/errors.md anew
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/python -m app.commands.reference > docs/cli.md.new && mv docs/cli.md.new docs/cli.md
	@PYTHONPATH=tests $(BIN)/python -m hostile.errors_page > docs/errors.md.new && mv docs/errors.md.new docs/errors.md

venv: $(DEV_STAMP)  ## install everything for work on the project into .venv

datastore: $(DEMO_STAMP)  ## build the compact bundle's starter datastore anew
	@rm -rf $(COMPACT)/datastore.new
	@$(BIN)/paellera datastore build datastore_build/starter/*.jsonl --strict \
		--bundle $(COMPACT) --output $(COMPACT)/datastore.new
	@rm -rf $(COMPACT)/datastore && mv $(COMPACT)/datastore.new $(COMPACT)/datastore

docker:  ## build the container image with a Docker engine
	@docker build --file docker/Dockerfile --tag paellera .

docker-verify: $(DEMO_STAMP)  ## build the image without a Docker engine and caption a photo through it (root)
	@PYTHON=$(BIN)/python docker/verify.sh

clean:  ## remove what the tools leave behind
	@rm -rf demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove .venv too
	@rm -rf $(VENV)

help:  ## list the targets
	@awk -F ":.*## " "/^[a-z-]+:.*## / {printf \"  %-14s %s\\n\", \$$1, \$$2}" $(MAKEFILE_LIST)

# pip's own report is long: this shows what is fetched, and leaves warnings and errors as they are.
define pip_install
@echo "installing into $(VENV); the first time takes some minutes, most of them for PyTorch"
@set -o pipefail; \
$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[$(1)]' \
| while read -r verb name _; do if [ "$$verb" = Collecting ]; then echo "  $$name"; fi; done
endef

$(DEMO_STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	$(call pip_install,$(DEMO_EXTRAS))
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	$(call pip_install,$(DEV_EXTRAS))
	@# Only its list of ImageNet's classes is read; what it depends on would bring torchvision.
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps timm==1.0.31
	@touch $(DEMO_STAMP) $@

# pip is the last thing a new environment gets, so an interrupted one is made again.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null \
		|| { echo "error: there is no $(PYTHON): install Python 3.11 or newer, or name it with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $$($(PYTHON) --version) is too old: name a Python 3.11 or newer with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "error: this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
