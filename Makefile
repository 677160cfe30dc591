PYTHON ?= python3
# Stages are started as `python -m stages.x`: the virtual environment's python comes first, nothing needs activating.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

INSTALLED := .venv/installed

.PHONY: help setup demo lint format types check test bench foundation

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## make .venv with the pinned versions of everything

demo: $(INSTALLED)  ## set up, run the whole pipeline on the embedded data and models, print the verdict
	truelike check
	dvc repro
	@python -c 'import json; verdict = json.load(open("metrics/accuracy.json"))["verdict"]; print("\n" + verdict["headline"], verdict["basis"])'
	@echo "Report: $(CURDIR)/reports/report.html"

lint: $(INSTALLED)  ## check style
	ruff check
	ruff format --check

format: $(INSTALLED)  ## write the style that lint checks
	ruff check --fix
	ruff format

types: $(INSTALLED)  ## check types
	mypy

check: lint types  ## check style and types, run the fast tests
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

test: lint types  ## check style and types, run every test
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder

BENCHMARKS := demo pipeline replicas synthesis training loading storage metrics memory cards

bench: $(INSTALLED)  ## measure what docs/performance.md claims, on what `make demo` made
	for name in $(BENCHMARKS); do python -m benchmarks.$$name || exit 1; done

foundation: $(INSTALLED)  ## train the embedded models again (hours)
	cd foundation && dvc repro
	python -m foundation.release

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("truelike needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
