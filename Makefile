# `make` alone lists what there is.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz bench simulate mutants lint fmt deps

help: ## List these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Not optimised: a release build takes twice as long to the first line, and the tests share this one.
demo: ## Sandbox, proxy and three tenants on this machine, until Ctrl-C
	$(CARGO) run --locked -- demo

# The tests of texts take no time and go first.
test: deps ## All that must pass: form, lints, tests, fuzz targets
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --test tidy --test readme
	$(CARGO) test --locked
	@CARGO="$(CARGO)" fuzz/run.sh

fuzz: deps ## Each fuzz target for FUZZ_SECONDS (60), three at a time (FUZZ=target runs that alone)
	@CARGO="$(CARGO)" fuzz/run.sh $(FUZZ)

bench: ## Benchmarks
	$(CARGO) bench --locked

# Optimised: a hundred million calls.
simulate: ## The pacer against six kinds of upstream; writes docs/scheduling.md and its plots
	$(CARGO) test --locked --release --test simulate

mutants: ## Changes the engine in every way and lists what no test notices (MUTANTS=--list lists them all)
	@CARGO="$(CARGO)" tests/mutants/run.sh $(MUTANTS)

lint: ## Form, lints and, where cargo-deny is installed, licences and sources
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny is not installed: licences and sources are not checked"; \
	fi

fmt: ## Format the code
	$(CARGO) fmt --all

deps: ## Install what the tests need, where it is missing (Debian)
	@tests/install-deps.sh
