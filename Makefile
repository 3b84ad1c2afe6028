# `make help` lists the targets. Everything runs in .venv, which tools/
# setup_env.py makes and checks; when nothing changed it returns at once.

PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) tools/setup_env.py
# Test processes, each with one thread: more threads than cores only wait.
TEST_JOBS ?= 2
TEST_ARGS ?=
DEMO_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-coverage test-learning test-downstream test-bound audit lint types docs clean

help:  ## list the targets
	@echo 'make TARGET [PYTHON=python3.12]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile \
		| while IFS='|' read -r name text; do \
			printf '  %-16s %s\n' $$name "$$text"; done

setup:  ## make .venv, install everything, check it
	@$(SETUP)

demo: setup  ## teachers, students, detectors on embedded data (12 min, 2 cores)
	@$(BIN)/python tools/demo.py $(DEMO_ARGS)

test: setup  ## run the tests (TEST_ARGS='-k name' for some of them)
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLBACKEND=Agg \
		$(BIN)/python -m pytest tests -q -n $(TEST_JOBS) \
		-m 'not learning and not downstream' \
		--ignore tests/test_tools/test_coverage.py $(TEST_ARGS)

test-coverage: setup  ## the trial of configs, which forks: a process of its own
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		$(BIN)/python -m pytest tests/test_tools/test_coverage.py -q

test-learning: setup  ## that each updater learns: minutes of training
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		$(BIN)/python -m pytest tests -q -n $(TEST_JOBS) -m learning

test-downstream: setup  ## every backbone family, every detector of the papers
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		$(BIN)/python -m pytest tests -q -n $(TEST_JOBS) -m downstream

test-bound:  ## classification with the oldest versions that setup.py promises
	@test -d .venv-bound || $(PYTHON) -m venv .venv-bound
	@.venv-bound/bin/python -m pip install -q -r requirements/bound.txt
	@OMP_NUM_THREADS=2 PYTHONPATH=. .venv-bound/bin/python -m pytest -q \
		-m 'not learning and not downstream' tests/test_reliability \
		tests/test_weighting/mtkd_rl tests/test_taps tests/test_losses \
		--deselect tests/test_weighting/mtkd_rl/test_learning_pixels.py

audit: setup  ## known vulnerabilities of the installed packages (needs network)
	@$(BIN)/uv tool run pip-audit --path $$($(BIN)/python -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))')

lint:  ## ruff over the whole repository
	@$(SETUP) --lint
	@$(BIN)/ruff check .

types: setup  ## mypy over mmkd_rl and tools
	@$(BIN)/mypy

docs: setup  ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'site/index.html'

clean:  ## remove .venv and what builds and tests leave (not work_dirs)
	rm -rf .venv site build dist .pytest_cache .ruff_cache .mypy_cache \
		*.egg-info
	find mmkd_rl tools tests configs -name __pycache__ -prune \
		-exec rm -rf {} + 2>/dev/null || true
