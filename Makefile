# make setup: make .venv with the pinned versions of everything
# make demo: set up, run the whole pipeline on the embedded data and models, print the verdict
# make test: set up, check style and types, run every test
# make bench: measure what docs/performance.md claims, on what `make demo` made
# make foundation: train the embedded models again (hours)

PYTHON ?= python3
# Stages are started as `python -m stages.x`: the virtual environment's python comes first, nothing needs activating.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

INSTALLED := .venv/installed

.PHONY: setup demo test bench foundation

setup: $(INSTALLED)

demo: $(INSTALLED)
	.venv/bin/dvc repro
	@.venv/bin/python -c 'import json; print("\n" + json.load(open("metrics/accuracy.json"))["verdict"]["sentence"])'
	@echo "Report: $(CURDIR)/reports/report.html"

test: $(INSTALLED)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/pytest -n auto --dist loadfile

BENCHMARKS := demo pipeline replicas synthesis training storage metrics memory

bench: $(INSTALLED)
	for name in $(BENCHMARKS); do .venv/bin/python -m benchmarks.$$name || exit 1; done

foundation: $(INSTALLED)
	cd foundation && ../.venv/bin/dvc repro
	.venv/bin/python -m foundation.release

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("truelike needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
