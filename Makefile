# Everything a newcomer needs:  make demo   compiles the example model and shows the result
#                               make test   lint, types and all tests
# Only python3 (3.11 or newer), git and make have to be there; the rest is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Number of test processes, and anything else for pytest: make test JOBS=8 PYTEST_ARGS='-k conv'
JOBS ?= 2
PYTEST_ARGS ?=

.PHONY: help demo test lint tools venv clean

help:
	@echo 'make demo    compile and run the example model'
	@echo 'make test    lint, types and all tests; first installs emulators and cross compilers where it may'
	@echo 'make lint    lint and formatting only'
	@echo 'make venv    the Python environment that test and lint use'
	@echo 'make clean   remove what was built ($(VENV) stays)'

demo: $(VENV)/.stamp-demo
	$(BIN)/python examples/01_digits.py

test: tools lint
	$(BIN)/python -m pytest -n $(JOBS) -q -rs $(PYTEST_ARGS)

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Emulators and cross compilers, as root or with sudo; QCC_CI_NO_APT=1 leaves the machine as it is.
tools:
	@bash .ci/install_tools

venv: $(VENV)/.stamp-test

# pyproject.toml names the dependencies, so a change to it installs again.
# The test environment holds all that the demo needs; the reverse is not true.
$(VENV)/.stamp-test: pyproject.toml
	@PYTHON='$(PYTHON)' sh .ci/make_venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-input -e '.[test,report,tvm]'
	@touch $@ $(VENV)/.stamp-demo

$(VENV)/.stamp-demo: pyproject.toml
	@PYTHON='$(PYTHON)' sh .ci/make_venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-input -e '.[report]'
	@touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
