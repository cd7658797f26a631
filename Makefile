# The two commands a new user needs: `make demo` and `make test`. Everything they need is installed here.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

APT := gcc g++ make pkg-config musl-dev libc6-dev python3 python3-dev python3-venv \
       libtss2-dev swtpm
APT_TEST := clang libclang-rt-dev gdb rustc # for tests only: fuzzers, a debugger, secret code in Rust
BIN := .venv/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VMM := hypervisor_agent/native/cafe-vmm

.PHONY: help setup native demo test lint format bench tcb fuzz prove coverage clean

help: ## Show what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

# $(call install,PACKAGES): with apt-get, those that are missing
install = @mkdir -p build; \
	if ! dpkg -s $(1) >/dev/null 2>&1; then \
	  echo "installing system packages (apt-get)" >&2; \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
	fi && touch $@

build/apt.done:
	$(call install,$(APT))

build/apt-test.done: build/apt.done
	$(call install,$(APT_TEST))

build/venv.done: build/apt.done pyproject.toml constraints.txt hypervisor_agent/vmm/build_hook.py
	@echo "installing Python packages into .venv" >&2
	@[ -x $(BIN)/python ] || python3 -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: build/venv.done native ## Install everything into .venv

native: build/apt.done
	@$(MAKE) --no-print-directory -C hypervisor_agent/vmm

demo: setup ## Protect a function, deploy it to an attested host, call it
	@$(BIN)/python examples/demo/demo.py

test: setup build/apt-test.done ## Lint, then every test
	@$(MAKE) --no-print-directory lint
	@$(BIN)/pytest

lint: setup ## ruff, mypy, import-linter, clang-format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >build/imports.log || { cat build/imports.log; exit 1; }
	@git ls-files '*.c' '*.h' | xargs -r $(BIN)/clang-format --dry-run --Werror

format: setup ## Rewrite the sources in the one style
	@$(BIN)/ruff check --fix . || true
	@$(BIN)/ruff format .
	@git ls-files '*.c' '*.h' | xargs -r $(BIN)/clang-format -i

bench: setup ## Measure; prints a table, writes build/bench.json and docs/explanation/performance.*
	@$(BIN)/python benchmarks/run.py

fuzz: setup build/apt-test.done ## Fuzz the C parsers, a minute each (FUZZ_SECONDS=60)
	@$(BIN)/python tests/fuzz/run.py --seconds $(or $(FUZZ_SECONDS),60)

prove: setup ## Prove the C validators with CBMC or Frama-C, where one is installed
	@$(BIN)/python tests/proofs/run.py

tcb: setup ## Count the code that has to be trusted; fails beyond its bounds
	@$(BIN)/python benchmarks/tcb.py

coverage: setup ## Branches of the C code that handles hostile input; fails below 100 %
	@$(BIN)/python tests/coverage/run.py

clean:
	rm -rf build .venv hypervisor_agent/native/cafe-vmm*
