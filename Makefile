# Two commands on a fresh machine with Python and make: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SOURCES := dacrl_env agents baselines benchmarks tests

.PHONY: demo test test-slow lint types bench references clean

demo: $(READY)
	$(BIN)/dacrl compare dacrl/DQN-CartPole-v0 --policies default linear-epsilon \
		exponential-epsilon freeze-when-good random --seeds 24 --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n auto

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow -s

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/dacrl bench

references: $(READY)
	$(BIN)/dacrl references dacrl/DQN-CartPole-v0

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv build dist runs *.egg-info
