# Everything a newcomer needs. Each target does its own set-up; Rust, a C compiler and make are enough.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
WASM := wasm32-unknown-unknown
MILLSTREAM := $(TARGET)/release/millstream
DEMO_MODULES := redact json-filter
PYTHON_CLIENT := sdk/python/run $(TARGET)/python

.PHONY: help demo test bench soak fuzz lint format stubs wasm-target

help: ## show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

demo: wasm-target ## run the whole of it on an agent of its own: produce, modules, segments, fetch
	cargo build --release --bin millstream
	@mkdir -p $(TARGET)/demo
	@for module in $(DEMO_MODULES); do \
		$(MILLSTREAM) module build modules/$$module -o $(TARGET)/demo/$$module.wasm; \
	done
	$(MILLSTREAM) demo --modules $(TARGET)/demo

test: wasm-target ## run all tests
	cargo build --workspace --lib --bins --tests
	@{ cargo test --manifest-path modules/Cargo.toml --target-dir $(TARGET)/modules --workspace; \
	   cargo test --workspace --doc; \
	   cargo test --workspace --lib --bins --tests --no-fail-fast; \
	   MILLSTREAM_BIN=$(abspath $(TARGET))/debug/millstream $(PYTHON_CLIENT) test; } 2>&1 | tee $(TARGET)/test.log | tests/summary

bench: wasm-target ## run the benchmarks; each prints ratios measured within its run
	cargo build --release --workspace --bins
	cargo bench --workspace --benches

soak: ## produce and consume while the agent is killed and the store goes away, for MILLSTREAM_SOAK_MINUTES=10
	cargo build --release --workspace --bins
	$(TARGET)/release/soak

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := batch wal_group wal_frame segment block

fuzz: ## fuzz every format, FUZZ_SECONDS=60 each
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p $(TARGET)/fuzz-corpus/$$target; \
		cargo fuzz run --sanitizer none --target-dir $(TARGET)/fuzz $$target \
			$(TARGET)/fuzz-corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS); \
	done

lint: ## check format and lints
	cargo fmt --all --check
	cargo fmt --manifest-path modules/Cargo.toml --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --manifest-path modules/Cargo.toml --target-dir $(TARGET)/modules --workspace --all-targets -- -D warnings
	$(PYTHON_CLIENT) lint

format: ## format the code
	cargo fmt --all
	cargo fmt --manifest-path modules/Cargo.toml --all

stubs: ## generate the Python client's stubs from the protos
	$(PYTHON_CLIENT) stubs

wasm-target:
	@[ -d "$$(rustc --print target-libdir --target $(WASM))" ] || rustup target add $(WASM)
