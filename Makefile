# Everything a contributor runs. `make` alone prints this list; PYTHON=..., VENV=... and ARGS=... may be given to any target.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV ?= .venv
# VENV_FLAGS=--system-site-packages lets the environment see packages (a CUDA torch, say) that the Python already has.
VENV_FLAGS ?=
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
EVERY_EXTRA := ui,train,eval,dev,postgres,serve,cluster,provenance,clients

.DEFAULT_GOAL := help
.PHONY: help chat test browser live check format nano constraints clean
.DELETE_ON_ERROR:

help: ## Show this list
	@echo "usage: make <target>"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

chat: $(VENV)/.installed-chat ## Install what the chat page needs and open it on http://localhost:8000
	$(BIN)/vargpt ui $(ARGS)

test: $(VENV)/.installed-dev ## Install what the tests need and run the default suite (CPU, offline)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

browser: $(VENV)/.installed-dev ## Run the tests that drive the chat page in a real Chromium
	$(BIN)/python -m pytest -m browser $(ARGS)

live: $(VENV)/.installed-dev ## Run the tests that load and kill real servers and databases
	$(BIN)/python -m pytest -m slow tests/serving tests/chat_ui $(ARGS)

check: $(VENV)/.installed-dev ## Format, lint, types and docstrings; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## Rewrite the code the way `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

nano: $(VENV)/.installed-dev ## Train the embedded model again, from nothing
	$(BIN)/python -m training.recipes.nano $(ARGS)

constraints: ## Write constraints.txt again, from the newest releases that fit together (takes some minutes)
	rm -rf build/constraints
	$(MAKE) --no-print-directory VENV=build/constraints build/constraints/bin/pip
	build/constraints/bin/python -m pip install --editable ".[ui,train,eval,dev]"
	@# In a second step, which keeps what the first has chosen: all at once, pip goes back and forth without an end.
	build/constraints/bin/python -m pip install --editable ".[$(EVERY_EXTRA)]"
	build/constraints/bin/python .ci/constraints.py > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean: ## Remove what the tools left behind (not the environment)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps make an installation run again only when what is asked for has changed. Without the constraints, pip may try
# release after release of dozens of packages.
$(VENV)/.installed-chat: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) install --constraint constraints.txt --editable ".[ui]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) install --constraint constraints.txt --editable ".[$(EVERY_EXTRA)]"
	@touch $@ $(VENV)/.installed-chat

# The target is pip, not python: an interrupted or crippled environment has the one without the other.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "vargpt needs Python 3.11 or newer; none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "vargpt needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments: its venv module is not installed. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
