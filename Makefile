# Everything a person types to try, check and measure overcoat; `make` alone lists it.

VENV ?= .venv
PYTHON ?=
PYTEST_ARGS ?=
bin := $(VENV)/bin

# In this order, because db-ally's dependencies have wheels for nothing newer than 3.11.
candidates := $(or $(PYTHON),python3.11 python3 python3.14 python3.13 python3.12 python)
jaeger := github.com/jaegertracing/jaeger
jaeger_version = $(shell sed -n 's|^require $(jaeger) ||p' tests/real/jaeger/go.mod)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo test coverage lint format types bench bench-peers jaeger clean
.DELETE_ON_ERROR:

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18
	@echo 'Settings: PYTEST_ARGS="-k retry"   VENV=folder   PYTHON=interpreter (to make that folder with)'

demo: $(VENV)/.demo ## Watch a stack survive a misbehaving provider (no key, no network)
	@$(bin)/overcoat demo

test: $(VENV)/.dev ## Run the tests; those that need a real part which is missing are skipped, with the reason
	@$(bin)/python -m pytest -rs $(PYTEST_ARGS)

coverage: $(VENV)/.dev ## Run the tests and fail below the coverage that pyproject.toml asks for
	@$(bin)/coverage erase
	@$(bin)/coverage run -m pytest -rs $(PYTEST_ARGS)
	@$(bin)/coverage combine --quiet
	@$(bin)/coverage report

lint: $(VENV)/.dev ## Check style
	@$(bin)/ruff check
	@$(bin)/ruff format --check

format: $(VENV)/.dev ## Repair style
	@$(bin)/ruff check --fix
	@$(bin)/ruff format

types: $(VENV)/.dev ## Check types, by mypy and by pyright
	@$(bin)/mypy
	@$(bin)/pyright --pythonpath $(bin)/python

bench: $(VENV)/.dev ## Measure what the layers cost
	@$(bin)/python benchmarks

bench-peers: $(VENV)/.made ## Measure it beside other libraries, in an environment of its own
	@test -d $(VENV)-peers || $(bin)/python -m venv $(VENV)-peers
	@$(VENV)-peers/bin/python -m pip install --quiet --editable . --requirement benchmarks/requirements-peers.txt
	@$(VENV)-peers/bin/python benchmarks/peers.py
	@$(VENV)-peers/bin/python benchmarks/peers_caches.py

jaeger: ## Build Jaeger for the tests, once per version, outside this folder (needs Go; minutes)
	@binary="$${XDG_CACHE_HOME:-$$HOME/.cache}/overcoat/jaeger-$(jaeger_version)"; \
	if [ ! -x "$$binary" ]; then \
	    echo "Building $$binary"; \
	    mkdir -p "$${binary%/*}" && cd tests/real/jaeger && \
	    go build -trimpath -ldflags '-s -w' -o "$$binary.new" $(jaeger)/cmd/jaeger && \
	    mv "$$binary.new" "$$binary"; \
	fi

clean: ## Remove what the other targets made in this folder
	@rm -rf .venv* dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +

# Version managers put names into PATH for interpreters that are not active, and distributions ship interpreters
# without venv: only running a candidate tells.
$(VENV)/.made:
	@for python in $(candidates); do \
	    if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$("$$python" --version)"; \
	        "$$python" -m venv --clear $(VENV) && touch $@; \
	        exit; \
	    fi; \
	done; \
	echo 'Python 3.11 or newer, with venv and pip, is needed and was not found (tried: $(candidates)).' >&2; \
	echo 'Install it (Debian, Ubuntu: apt install python3-venv) or name it: make PYTHON=/path/to/python ...' >&2; \
	exit 1

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	@echo 'Installing overcoat and litellm into $(VENV) (once; about a minute)'
	@$(bin)/python -m pip install --quiet --editable '.[litellm]'
	@touch $@

# The pip that comes with Python 3.11 and 3.12 does not know --group.
$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo 'Installing overcoat, all its extras and what its tests need into $(VENV) (once; a few minutes)'
	@$(bin)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(bin)/python -m pip install --quiet --editable '.[all]' --group dev
	@touch $(VENV)/.demo $@
