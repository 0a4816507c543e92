# Two commands on a fresh machine with Python and make: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# the pip that comes with Python finds versions three times as slowly, and modules are
# compiled when they are first imported: few of them are
QUICKLY := --quiet --no-compile
SOURCES := dacrl_command.py dacrl_env agents baselines benchmarks docs/_hooks.py \
	docs/_notebooks.py docs/course tests

.PHONY: demo test test-lowest test-slow lint types docs bench references clean

demo: $(READY)
	$(BIN)/dacrl compare dacrl/DQN-CartPole-v1 --policies default \
		decay=linear,hyperparameter=learning_rate,start=0.034,end=0.0034 \
		freeze=freeze-when-good,threshold=0.9 checkpoint=checkpoint-when-best \
		random --seeds 24 --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n auto

# the lower bounds of pyproject.toml, in an environment of their own; Gymnasium's
# RecordEpisodeStatistics counts members that restart in the same step only from 1.4 on
LOWEST := .venv-lowest
LOWEST_TESTS := tests/test_import.py tests/outer/test_vector_env.py \
	tests/outer/test_autoreset.py tests/outer/test_rendering.py \
	tests/core/test_trackers.py tests/integrations/test_minari.py \
	tests/inner_envs/test_gymnasium_adapter.py tests/comparison/test_report.py \
	tests/core/test_store.py tests/core/test_snapshot.py \
	tests/integrations/test_sb3.py tests/algorithms/test_sb3_*.py \
	tests/learners/test_dqn.py tests/methods/test_search.py \
	tests/policies/test_gate.py tests/agents/test_controllers.py \
	tests/integrations/test_dacbench.py

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -n 2 $(LOWEST_TESTS) \
		tests/inner_envs tests/kernels tests/algorithms/test_definitions.py --deselect \
		tests/outer/test_vector_env.py::test_episode_statistics_wrapper

$(LOWEST)/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install $(QUICKLY) --upgrade pip
	$(LOWEST)/bin/python -m pip install $(QUICKLY) --constraint constraints-lowest.txt \
		--editable '.[dev]'
	touch $@

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow -s

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(READY)
	$(BIN)/mypy

# the site, in site/; a warning is an error
docs: .venv/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.venv/.ready-docs: $(READY)
	$(BIN)/python -m pip install $(QUICKLY) --constraint constraints.txt \
		--editable '.[docs]'
	touch $@

bench: $(READY)
	$(BIN)/dacrl bench

references: $(READY)
	$(BIN)/dacrl references dacrl/DQN-CartPole-v0

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(QUICKLY) --upgrade pip
	$(BIN)/python -m pip install $(QUICKLY) --constraint constraints.txt \
		--editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv .venv-lowest build dist runs site *.egg-info
