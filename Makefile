# The targets of this tree; `make` lists them.

PYTHON ?= python3
VENV ?= .venv
# Further arguments for pytest, such as ARGS="-k restore -x", and of the targets that name it.
ARGS ?=
# How many tests run at once ("auto": one more than there are processors); PARALLEL= is one, with its output as it comes.
PARALLEL ?= -n auto --maxprocesses 4 --dist worksteal
# The benchmarks' heavy packages go into an environment of their own, unless VENV is given.
bench_venv = $(if $(filter file,$(origin VENV)),.venv-bench,$(VENV))
# How long to fuzz.
SECONDS ?= 60
# How long the benchmarks may take.
MINUTES ?= 27
# The built lib directory of CRIU's source, which has pycriu for the benchmarks.
PYCRIU ?=
# Arguments of the demo, such as DEMO="--rounds 20".
DEMO ?=

python = $(VENV)/bin/python
# The binding is also tested with an older CRIU, built lean, and with the newest one, built with all features.
other_criu = $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/libcriu_py/criu
test_prefixes = $(other_criu)-trixie:$(other_criu)-sid
make_venv = scripts/make-venv --python $(PYTHON)

.DEFAULT_GOAL := help
.PHONY: help criu venv build demo test lint types format unit coverage system test-tools man wheels test-wheels test-clean test-cpython test-apps test-integrations stress matrix faults soak fuzz bench bench-auto bench-integrations clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'PYTHON=... selects the interpreter, VENV=... the virtual environment, ARGS=... goes to pytest.'

criu: ## get a CRIU that is new enough
	@scripts/install-criu

venv: criu ## make .venv with the package, editable, and all tools
	@$(make_venv) --extra dev $(VENV)

build: venv ## build the C extension in place, with warnings as errors
	@LIBCRIU_PY_WERROR=1 $(python) setup.py -q build_ext --inplace

demo: criu ## run a pandas program conventionally and restored, and compare
	@$(make_venv) --extra demo $(VENV)
	@$(python) examples/demo.py $(DEMO)

test: test-tools lint types ## lint, types, all tests; installs what is missing
	@LIBCRIU_PY_TEST_PREFIXES='$(test_prefixes)' $(python) -m pytest --no-skips $(PARALLEL) $(ARGS)

lint: venv ## ruff: rules and format; import-linter: layers
	@$(python) -m ruff check . && $(python) -m ruff format --check .
	@if grep -q '^\[tool\.importlinter\]' pyproject.toml; then $(VENV)/bin/lint-imports --no-logo --no-cache; fi

types: venv ## mypy, strict
	@$(python) -m mypy

format: venv ## let ruff fix what it can, and write docs/settings.md
	@$(python) -m ruff check --fix . ; $(python) -m ruff format .
	@$(python) scripts/settings_page.py > docs/settings.md

unit: venv ## the tests that need neither root nor criu
	@$(python) -m pytest tests/unit $(ARGS)

coverage: venv ## measure the unit tests and the programs that they start
	@$(python) -m coverage erase; $(python) -m coverage run -m pytest $(PARALLEL) tests/unit $(ARGS); status=$$?; \
	$(python) -m coverage combine -q && $(python) -m coverage report && exit $$status

test-tools: venv
	@scripts/install-test-tools
	@scripts/install-criu --from-source --suite trixie --prefix '$(other_criu)-trixie'
	@scripts/install-criu --full --suite sid --prefix '$(other_criu)-sid'

system: test-tools ## the tests that dump and restore
	@LIBCRIU_PY_TEST_PREFIXES='$(test_prefixes)' $(python) -m pytest --no-skips $(PARALLEL) tests/system $(ARGS)

stress: venv ## restore thousands of copies, also at once, under signals and in odd address spaces (minutes)
	@$(python) -m tests.stress $(ARGS)

man: venv ## write the man page, docs/libcriu-py.1
	@$(python) scripts/man_page.py > docs/libcriu-py.1

wheels: man ## build what is published in dist/, and check it: wheels for every glibc from 2.17 on, and a source distribution
	@scripts/make-wheels --python $(PYTHON)

test-wheels: ## use the wheels in dist/ in clean roots of Debian 12 and 13 (root; minutes)
	@scripts/test-wheels

test-clean: ## install, build and use it in clean roots of Debian 12 and 13 (root; minutes)
	@scripts/test-clean

test-cpython: venv ## CPython's own tests, in restored interpreters and in fresh ones (minutes)
	@scripts/test-cpython

test-apps: venv ## real programs and frameworks from PyPI, restored and conventional (minutes)
	@scripts/test-apps

test-integrations: test-tools ## pytest, notebooks, pools, servers, functions and workers, with their real software (minutes)
	@scripts/test-integrations $(PARALLEL) $(ARGS)

matrix: test-tools ## test what programs may hold open in each mode, and write the table in docs/unprivileged.md
	@$(python) -m pytest --no-skips --write-matrix tests/system/privilege/test_matrix.py $(ARGS)

faults: test-tools ## kill, fill up and damage whatever takes part, and write docs/reliability.md (root; ARGS=--quick: a part)
	@$(python) -m tests.faults $(ARGS)

soak: test-tools ## 2,000 operations of all kinds, and counts of what they leave (root)
	@$(python) -m tests.faults.soak $(ARGS)

fuzz: ## fuzz what the launcher reads (SECONDS=60)
	@scripts/fuzz $(SECONDS)

bench: ## measure (MINUTES=27), and write the times into README and docs; installs CRIU and heavy packages
	@scripts/install-criu --from-source
	@$(make_venv) --extra bench $(bench_venv)
	@PYCRIU='$(PYCRIU)' $(bench_venv)/bin/python -m benchmarks.suite --minutes $(MINUTES)
	@$(MAKE) bench-integrations

bench-integrations: test-tools ## pytest, notebooks, pools, servers, functions and workers, into docs/integrations/README.md
	@$(make_venv) --extra integrations .venv-integrations
	@.venv-integrations/bin/python -m benchmarks.integrations $(ARGS)

bench-auto: venv ## fifteen commands from PyPI by `libcriu-py auto`, into docs/auto.md (10 minutes the first time)
	@$(python) -m benchmarks.automatic build/auto

clean: ## remove everything that was built here, except CRIU
	rm -rf build dist .venv .venv-apps .venv-bench .venv-integrations .venv-ipykernel .venv-wheels .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* *.egg-info libcriu_py/_libcriu*.so libcriu_py/bin
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
