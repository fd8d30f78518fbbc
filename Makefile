# make demo and make test each work as the first command on a fresh clone.
.DELETE_ON_ERROR:
.PHONY: demo demo-story test lint pytest short-demo wheel clean

PYTHON ?= python3
SNR ?= 1
SEED ?= 0
NPROCS ?= 2
BIN := .venv/bin
export SNR SEED NPROCS
export BRAINLM_BIN := $(CURDIR)/$(BIN)

demo: .venv/.stamp
	scripts/demo.sh demo

demo-story: .venv/.stamp
	scripts/demo_story.sh demo-story

test: lint wheel short-demo pytest

lint: .venv/.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

# Two processes; the one that is done takes tests from the other, so that no long file is left to one of them at the end.
pytest: .venv/.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

# The demo with less of everything, and its outputs checked.
short-demo: .venv/.stamp
	rm -rf build/short-demo
	DEMO_SHORT=1 scripts/demo.sh build/short-demo
	$(BIN)/python scripts/check_demo.py build/short-demo

# The built wheel, installed into an empty environment and run from /.
wheel: .venv/.stamp
	scripts/check_wheel.sh build/wheel

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it by make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv build demo demo-story dist
