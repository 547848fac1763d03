# The commands of this project. `make help` lists them.
PYTHON ?= python3
PROFILE ?= quick
JOBS ?= 2
FAULTS ?= 1
VENV := .venv
BIN := $(VENV)/bin
# One thread a process: pytest and the sweeps run several processes, and torch would give each one every core.
export OMP_NUM_THREADS = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
.PHONY: help install install-locked lock test test-processes test-docs test-triton check test-faults test-cluster test-peers reproduce bench bench-inference docs lint audit format build release-check test-floor test-newest clean

help:  ## list the commands
	@echo "structkd: structural knowledge distillation"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PROFILE chooses what 'make reproduce' runs: quick (default), cpu (hours, on corpora of your own or the hub) or"
	@echo "  paper (published settings, for a GPU and the hub); JOBS=2 how many processes work at once."

install: $(VENV)/installed  ## create .venv with the tested versions of constraints.txt

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "structkd needs Python 3.11 or later, got %s; name one with make PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Hashes hold for files of the index, not for those that building a source distribution would fetch: setuptools comes first,
# from the lock, and nothing else is fetched to build with.
LOCKED = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation
install-locked:  ## create .venv anew from the files of constraints.lock and no others, each compared with its sha256
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python .ci/lock.py setuptools > $(VENV)/setuptools.txt
	$(LOCKED) --requirement $(VENV)/setuptools.txt
	$(LOCKED) --requirement constraints.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $(VENV)/installed

lock:  ## write constraints.lock: the versions of constraints.txt with the sha256 of their files in the package index
	$(PYTHON) .ci/lock.py

test: install  ## run the tests (five and a half minutes on 2 cores)
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m "not processes and not triton and not docs"

test-processes: install  ## run the tests that start, kill and install programs, and all scenarios (about 4 minutes)
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m processes

test-docs: install  ## run the code blocks and commands of README and guides (about 1 minute)
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m docs

test-triton: install  ## run the kernels for a GPU, in Triton's interpreter if there is none (about 90 seconds)
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m triton

check: install  ## check style, types and known weaknesses, run the tests of mathematics, data and structure by one path of the kernels (about 2 minutes)
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint audit fast

.PHONY: fast
fast:
	$(BIN)/python -m pytest --numprocesses $(JOBS) --fast -m "not processes and not triton and not docs"

test-peers: install tests_peers/.peers/installed  ## run other libraries' tests on our classes, and compare results
	$(BIN)/python tests_peers/run.py

tests_peers/.peers/installed: tests_peers/requirements.txt | install
	rm -rf $(@D)/packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D)/packages -r $<
	@touch $@

test-faults: install  ## kill, damage, fuzz and cut the power; write experiments/results/faults.md (FAULTS=1: hours; 0.01: minutes; "1 interrupted=0.1": all but interruptions)
	$(BIN)/python tests_faults/run.py --size $(FAULTS)

# Tools of the tests are the newest in both.
TOOLS := pytest pytest-timeout pytest-xdist hypothesis seqeval pyyaml tensorboard build

test-floor:  ## run the tests of make check with the lowest versions that setup.cfg allows (on Python 3.11; about 5 minutes)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "The lowest versions are those of Python 3.11, got %s: make test-floor PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) .ci/bounds.py > .floor.txt
	$(MAKE) --no-print-directory .venv-floor/ran CONSTRAINTS="--constraint .floor.txt"

test-newest:  ## run the tests of make check with the newest versions that the package index has
	$(MAKE) --no-print-directory .venv-newest/ran

.PHONY: .venv-floor/ran .venv-newest/ran
.venv-floor/ran .venv-newest/ran:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade $(CONSTRAINTS) --editable '.[fast,report,export,sweep]' $(TOOLS)
	$(@D)/bin/python -m structkd env
	$(@D)/bin/python -m pytest --numprocesses $(JOBS) --fast -m "not processes and not triton and not docs"

test-cluster: install tests_cluster/.ray/installed  ## disturb sweeps on a real Slurm, which this starts (Debian: slurm-wlm, munge), run one on Ray, and kill one of two processes of a training (about 10 minutes)
	$(BIN)/python tests_cluster/run.py

# Ray's launcher wants an old cloudpickle, so it lives in a folder of its own, which comes first when Ray is tried.
tests_cluster/.ray/installed: tests_cluster/ray.txt | install
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(@D)/packages -r $<
	@touch $@

reproduce: install  ## train teachers and students, write experiments/results/PROFILE (quick: about 18 minutes)
	$(BIN)/python experiments/reproduce.py --profile $(PROFILE) --jobs $(JOBS)

bench: install experiments/bench/.peers/installed  ## measure speed and memory, write experiments/results/bench.md (about 3 minutes)
	PYTHONPATH=experiments/bench/.peers $(BIN)/python experiments/bench/run.py

bench-inference: install experiments/bench/.peers-inference/installed  ## measure how fast trained models annotate text, write experiments/results/inference.md (about 10 minutes, and 12 for the models once)
	$(BIN)/python experiments/bench/inference.py

# spaCy has dependencies of its own, so it gets an environment of its own.
experiments/bench/.peers-inference/installed: experiments/bench/peers-inference.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# What is only compared with lives in a folder of its own; --no-deps keeps our torch.
experiments/bench/.peers/installed: experiments/bench/peers.txt | install
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	@touch $@

docs: install  ## build the documentation as a site in build/site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: install  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: .venv-audit/made  ## look for risky code (bandit) and known holes of the tested versions (pip-audit)
	.venv-audit/bin/python .ci/audit.py

# Without a package index the tools are missing. The audit says so, and the next one tries again.
.venv-audit/made: .ci/audit.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --retries 0 --timeout 20 --requirement $< && touch $@ || true

format: install  ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: install  ## build the wheel and the source distribution into dist/
	$(BIN)/python -m build

release-check: install  ## build wheel and sdist, try them on every Python there is, build the site, compare versions
	$(BIN)/python .ci/release.py $(PYTHONS)

clean:  ## remove the environment and what was built (results and caches stay)
	rm -rf $(VENV) .venv-audit .venv-floor .venv-newest .floor.txt build dist src/*.egg-info
