# Two commands do all their set-up on a machine with Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
WORKERS ?= 2
KERNEL := hatch_build.py $(wildcard src/spikeguard/kernels/cpu/*.cpp src/spikeguard/kernels/cpu/*.h) # compiled by the installation

.PHONY: help demo test test-long test-fast lint types format docs test-wheel test-peers check bench-peers drill clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 13

demo: $(VENV)/.core ## Train, attack and audit four networks on embedded digits; write the report.
	$(BIN)/spikeguard demo --out runs/demo

test: $(VENV)/.dev ## Run the test suite.
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-long: $(VENV)/.dev ## Run the cases that make test leaves out.
	SPIKEGUARD_LONG=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long

test-fast: $(VENV)/.dev ## Run the tests that are not marked slow.
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not browser"

lint: $(VENV)/.dev ## Check format and lint.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev ## Check types (mypy, strict on src).
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code and fix what ruff can fix.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs ## Build the documentation site, build/site/index.html; check its links.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test-wheel: $(VENV)/.core ## Build a wheel, install it in a fresh environment and run the demo there.
	rm -rf build/wheel && $(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps -w build/wheel .
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt build/wheel/*.whl
	cd build/wheel && CXX=none env/bin/spikeguard list kernels && env/bin/spikeguard demo --quick --out demo

test-peers: $(VENV)/.dev bench-peers ## Test against foolbox, ART, SpikingJelly, snnTorch and Norse themselves.
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/peers tests/benchmarking

check: lint types test test-long test-peers docs test-wheel ## All checks of a change.

bench-peers: $(VENV)/.core ## Install what benchmarks and peer tests compare with; no torchvision, no CUDA.
	$(PIP) -e ".[bench]"
	$(PIP) --no-deps spikingjelly norse
	@$(BIN)/python -c 'import torch; print("torch", torch.__version__)'

drill: $(VENV)/.dev ## Kill processes, fill disks, damage files, let two write one folder; compare with undisturbed runs.
	@mkdir -p build; export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1; \
	$(BIN)/python -m tests.drill.mutations --jobs 1 > build/mutations.txt & mutations=$$!; \
	$(BIN)/python -m tests.drill; killed=$$?; \
	wait $$mutations; damaged=$$?; cat build/mutations.txt; exit $$((killed + damaged))

clean: ## Remove the environment and the caches; runs/ and data/ stay.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "SpikeGuard needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	@echo "Installing SpikeGuard into $(VENV) (once; about a minute, and a download of torch) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.core
	@echo "Installing the tools of the documentation site into $(VENV) (once) ..."
	$(PIP) -e ".[docs]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	@echo "Installing SpikeGuard and its development tools into $(VENV) (once) ..."
	$(PIP) -e ".[dev]"
	@touch $(VENV)/.core $@
