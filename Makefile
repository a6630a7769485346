# Every target sets up what it needs, in .venv.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt

# Modules are compiled once, whatever the machine is set to: else training takes twice as long to start, each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint docs bench bench-http fuzz audit format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' Makefile | expand -t 12

demo: .venv/train  ## train, export, segment, serve and report on a small drawn data set, in some minutes
	$(BIN)/alserve demo --out runs/demo

test: .venv/dev  ## run all tests, in two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

lint: .venv/dev  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/dev  ## build the documentation into build/site; warnings are errors, no network is used
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/dev demo  ## measure folder inference against other loops; about half an hour
	$(BIN)/python benchmarks/folder.py runs/demo/run
	$(BIN)/python benchmarks/resume.py

bench-http: .venv/dev  ## measure the service, then load test it; wants a machine that does nothing else
	$(BIN)/python benchmarks/http_service.py
	$(BIN)/python benchmarks/endurance.py

fuzz: .venv/dev  ## decode 3,000 mutated images of every kind within limits of time and memory; some minutes
	$(BIN)/python benchmarks/fuzz_decoders.py

audit: .venv/dev  ## check the pinned packages against known advisories, where the package index has these
	$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

format: .venv/dev  ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and everything that was made
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# uv is quicker, but knows no package index that only pip is set to.
.venv/train: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(PIP) uv
	$(UV) -e '.[train]' || $(PIP) -e '.[train]'
	touch $@

.venv/dev: .venv/train
	$(UV) -e '.[train,dev]' || $(PIP) -e '.[train,dev]'
	touch $@
