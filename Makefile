# Every target sets up what it needs, in .venv.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint bench bench-http fuzz audit format clean

demo: .venv/train  ## the whole path on a small drawn data set, in a few minutes
	$(BIN)/alserve demo --out runs/demo

test: .venv/dev  ## all tests, in two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

bench-http: .venv/dev  ## measure the service, then wear it down; wants a machine that does nothing else
	$(BIN)/python benchmarks/http_service.py
	$(BIN)/python benchmarks/endurance.py

lint: .venv/dev  ## format, style, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/dev demo  ## folder inference against what one would write today; about half an hour
	$(BIN)/python benchmarks/folder.py runs/demo/run
	$(BIN)/python benchmarks/resume.py

fuzz: .venv/dev  ## 3,000 mutated images of every kind, decoded within limits of time and memory; some minutes
	$(BIN)/python benchmarks/fuzz_decoders.py

audit: .venv/dev  ## the pinned packages against known advisories, where the package index has these
	$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/train: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	touch $@

.venv/dev: .venv/train
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $@
