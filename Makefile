# make demo: set everything up and turn the demo photos into 3D hands (demo/).
# make test: set everything up and pass the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
CODE := densehand tests tools benchmarks

.PHONY: demo test lint clean

demo: $(VENV)/.package
	$(BIN)/densehand predict demo_photos --out demo --write json,overlay,glb
	@echo "open demo/*.overlay.jpg and demo/*.glb"

test: $(VENV)/.development
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.development
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy densehand tools benchmarks

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/.development: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[dev,train]"
	@touch $@ $(VENV)/.package

clean:
	rm -rf $(VENV) demo build *.egg-info
