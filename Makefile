# Every target works in .venv, which is made on first use and again when the pins or the package's metadata change.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# On every core; one test at a time, but for groups that share what takes long.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadgroup

# Python keeps what it compiled, also where the environment says otherwise: hundreds of processes start here.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help book slides pdf claims lint check test exercises clean

help:
	@echo "make book       run the pages and build the textbook into _build/html"
	@echo "make slides     a deck of slides for each part, in _build/slides; after make book"
	@echo "make pdf        the built book as one PDF, and the decks that are there; needs Chromium"
	@echo "make check      lint, types, the fast tests and one page of what changed; before each commit"
	@echo "make test       lint, types, spelling, all tests, the solutions, the built site in a browser"
	@echo "make claims     measure the book's conclusions again, where code has changed: a sample, or all their options"
	@echo "make exercises  write exercises/ again from solutions/"
	@echo "make clean      delete what the other targets built, except .venv"

.venv/.installed: requirements.txt pyproject.toml grader/pyproject.toml
	@echo "== environment: installing the pinned packages into .venv (minutes the first time)"
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	  echo "The pins need Python 3.11 or newer: make PYTHON=python3.11 ..., or follow 'Without make' in README.md"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { \
	  echo "No virtual environment could be made: on Debian and Ubuntu, install the package python3-venv"; exit 1; }
	@# Two pips, since one uses one core, and torch first; the pins need no resolver. The last asks what this system needs
	@# beside them, while the others' modules are compiled.
	@{ grep -v '^#' requirements.txt | sort -r | tr '\n' '\0' | \
	    xargs -0 -P 2 -n 40 $(PIP) install -q --no-compile --no-deps && { \
	    $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' .venv/lib 2>/dev/null & \
	    $(PIP) install -q --no-compile --no-build-isolation -r requirements.txt -e . -e ./grader; \
	    installed=$$?; wait; test $$installed = 0; }; } || { \
	  echo "pip could not install the packages (see above): the set-up needs a package index once; check the network"; exit 1; }
	@touch $@

book: .venv/.installed
	@echo "== book: running pages, rendering"
	@$(BIN)/python book/build.py

slides: .venv/.installed
	@echo "== slides from the built book"
	@$(BIN)/python -m book.slides

pdf: .venv/.installed
	@echo "== PDF of the built book"
	@$(BIN)/python -m book.pdf

lint: .venv/.installed
	@echo "== lint, spelling, types"
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && $(BIN)/codespell && $(BIN)/mypy

# What is not committed, or else the last commit, and all that imports it.
check: lint
	@echo "== fast tests of what changed and of what imports it"
	@$(PYTEST) --affected || test $$? = 5  # 5: there are none
	@echo "== a page that it reaches"
	@$(BIN)/python book/build.py $$($(BIN)/python tests/affected.py)

test: lint
	@sh .ci/system-packages
	@echo "== tests that train or grade, with the kernels of an old processor"
	@ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE $(PYTEST) -m "trains and not exhaustive"
	@echo "== solutions"
	@$(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --dist loadfile solutions
	@echo "== book"
	@$(BIN)/python book/build.py
	@echo "== all other tests, the site in a browser among them"
	@$(PYTEST) -m "not exhaustive and not trains"

claims: .venv/.installed
	@echo "== claims"
	@$(BIN)/python -m book.claims

exercises: .venv/.installed
	@echo "== exercises from solutions"
	@$(BIN)/python -m grader.release

clean:
	@echo "== removing _build and caches (.venv stays; delete it by hand if you want)"
	@rm -rf _build build dist .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +
