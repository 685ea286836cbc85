# Every target works from a bare clone: it makes .venv and installs what it needs, once.
#
#   make demo       run the tiny recipe on the CPU; results in runs/
#   make test       run the fast test suite
#   make test-long  kill runs at random moments; launchers, sweepers (minutes)
#   make check      ruff, mypy, import-linter
#   make install    only install, for running reasoning-lab by hand
#
# PYTHON=/path/to/python3 picks the interpreter (3.11 or newer). Without a GPU the versions in
# constraints-cpu.txt are taken; that file says how pip finds the CPU build of torch.

VENV := .venv
BIN := $(VENV)/bin
PYTHONS := $(or $(PYTHON),python3.11 python3 python3.12 python3.13)

.PHONY: help demo test test-long check install
# Two pips in one environment spoil it.
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

demo: install
	@$(BIN)/reasoning-lab

test: $(VENV)/dev.stamp
	@$(BIN)/pytest

test-long: $(VENV)/dev.stamp
	@$(BIN)/pytest -m long

check: $(VENV)/dev.stamp
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

install: $(VENV)/base.stamp

# pip is the last thing that venv writes, so an interrupted creation is done again.
$(BIN)/pip:
	@for candidate in $(PYTHONS); do \
	    if $$candidate -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "None of '$(PYTHONS)' is a Python >= 3.11 with venv:" \
	        "install one, or name it with PYTHON=/path/to/python3." >&2; \
	    exit 1; \
	fi; \
	echo "Creating $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

# Stderr is left alone: with -q -q it holds errors only.
comma := ,
define pip_install
@echo "Installing reasoning-lab$(1) into $(VENV) (a few minutes the first time)"
@if nvidia-smi >/dev/null 2>&1; then tested=; else tested='-c constraints-cpu.txt'; fi; \
$(BIN)/python -m pip install -q -q --no-input $$tested -e '.$(1)'
endef

$(VENV)/base.stamp: pyproject.toml constraints-cpu.txt | $(BIN)/pip
	$(call pip_install,)
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints-cpu.txt | $(BIN)/pip
	$(call pip_install,[dev$(comma)launchers])
	@touch $(VENV)/base.stamp $@
