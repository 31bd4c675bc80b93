# The two commands of the README are `make demo` and `make test`; both need nothing but Python 3.11+ and pip.
PYTHON ?= python3
IMAGE ?=
export PYTHON
# Files of tests stay together, so that what they share is made once; those that take longest come first.
IN_TWO = -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all check fuzz mutants format wheel networks sanitize emulate setup clean

demo: ## segment a generated street, or IMAGE=your.jpg, with the bundled model
	@bash scripts/setup.sh
	@.venv/bin/foveal demo $(IMAGE)

test: setup ## the whole test run: formatting, lint, types, tests
	@.venv/bin/ruff format --check src tests studies scripts examples benchmarks
	@.venv/bin/ruff check src tests studies scripts examples benchmarks
	@.venv/bin/mypy src/foveal
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(IN_TWO)

test-all: setup ## the slow tests too: what is repeated at length, with more networks, processes and processors
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(IN_TWO) -m "slow or not slow"

check: test

format: setup
	@.venv/bin/ruff format src tests studies scripts examples benchmarks
	@.venv/bin/ruff check --fix src tests studies scripts examples benchmarks

wheel: ## build the wheel into dist/, and try it in a fresh environment without a compiler
	@bash scripts/wheel.sh

fuzz: setup ## mutated files of every kind; FUZZ_CASES of each, FUZZ_SECONDS for each kind
	@FUZZ_CASES=$${FUZZ_CASES:-1000} FUZZ_SECONDS=$${FUZZ_SECONDS:-60} FUZZ_KEEP=$${FUZZ_KEEP:-tests/fuzz/corpus} .venv/bin/python -m pytest tests/fuzz -n0 -s

mutants: setup ## mutation testing of what decides; about an hour. MUTANTS="evaluation/metrics.py ..." for some files
	@.venv/bin/pip install -q mutmut==3.8.1
	@nice -n 19 .venv/bin/python scripts/mutants.py $(MUTANTS)

networks: setup ## try other people's networks and write docs/networks.md; half an hour
	@.venv/bin/pip install -q --no-deps torchvision timm segmentation-models-pytorch
	@.venv/bin/pip install -q transformers scipy
	@.venv/bin/python scripts/networks.py

sanitize: setup ## run the tests of the kernels on a build that reports out-of-bounds accesses and undefined behaviour
	@.venv/bin/python scripts/sanitize.py

emulate: setup ## run programs on an emulated 64-bit ARM; needs gcc-aarch64-linux-gnu and qemu-user
	@.venv/bin/python scripts/emulate.py

setup:
	@bash scripts/setup.sh dev

clean:
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
