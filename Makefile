# What there is to do in this tree; `make` lists it.

PYTHON ?= python3
VENV ?= .venv
# Further arguments for pytest, such as ARGS="-k restore -x".
ARGS ?=
# Arguments of the demo, such as DEMO="--rounds 20".
DEMO ?=

python = $(VENV)/bin/python
make_venv = scripts/make-venv --python $(PYTHON)

.DEFAULT_GOAL := help
.PHONY: help criu venv build demo test lint types format unit system test-clean bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'PYTHON=... selects the interpreter, VENV=... the virtual environment, ARGS=... goes to pytest.'

criu: ## get a CRIU that is new enough
	@scripts/install-criu

venv: criu ## make .venv with the package, editable, and all tools
	@$(make_venv) --extra dev $(VENV)

build: venv ## build the C extension in place, with warnings as errors
	@LIBCRIU_PY_WERROR=1 $(python) setup.py -q build_ext --inplace

demo: criu ## show what it does: a pandas program, conventional and restored
	@$(make_venv) --extra demo $(VENV)
	@$(python) examples/demo.py $(DEMO)

test: venv ## lint, types, all tests; what is missing is installed
	@scripts/install-test-tools
	@$(MAKE) --no-print-directory lint types
	@$(python) -m pytest --no-skips $(ARGS)

lint: venv ## ruff
	@$(python) -m ruff check .

types: venv ## mypy, strict
	@$(python) -m mypy

format: venv ## let ruff put right what it can
	@$(python) -m ruff check --fix .

unit: venv ## the tests that need neither root nor criu
	@$(python) -m pytest tests/unit $(ARGS)

system: venv ## the tests that dump and restore
	@scripts/install-test-tools
	@$(python) -m pytest --no-skips tests/system $(ARGS)

test-clean: ## install, build and use it in clean roots of Debian 12 and 13 (root; minutes)
	@scripts/test-clean

bench: criu ## measure; heavy packages are installed
	@$(make_venv) --extra bench $(VENV)
	@$(python) -m benchmarks.startup
	@$(python) -m benchmarks.spawn

clean: ## remove what was built here (not CRIU)
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info libcriu_py/_libcriu*.so
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
