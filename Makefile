# The front door. `make` alone lists what there is.

SHELL := /bin/bash
VERSION := $(shell sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -n 1)
SONAME := libfastmq.so.0
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
SECONDS ?= 600
# rustup target add it; only x86-64 and aarch64 are tried.
STATIC_TARGET ?= $(shell uname -m)-unknown-linux-musl
export PATH := $(CURDIR)/.tools/bin:$(PATH)

CFLAGS ?= -O2 -g
# gnu11: the programs use POSIX threads and epoll. The header itself is checked as strict C11.
C_STRICT := -std=gnu11 -Wall -Wextra -Wpedantic -Werror -Iinclude
C_LINK := -Lbuild/lib -lfastmq -Wl,-rpath,'$$ORIGIN/../lib' -lpthread -lm
# Where make install puts things. DESTDIR, empty by default, goes in front of each.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
INSTALL_NAMES = PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' LIBDIR='$(LIBDIR)' \
	INCLUDEDIR='$(INCLUDEDIR)' MANDIR='$(MANDIR)' UNITDIR='$(UNITDIR)' DESTDIR='$(DESTDIR)' \
	VERSION='$(VERSION)' SONAME='$(SONAME)'
SUPPORT := $(wildcard tests/support/*.h tests/c/*.h examples/c/*.h)

.DEFAULT_GOAL := help
.PHONY: help setup run build static test bench soak header header-check vectors audit fmt clean
.PHONY: install uninstall abi-check abi-accept

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

setup: ## install what building needs and is missing
	@bash tests/stages/00-setup.sh build | sed '/^ok /d'

run: setup build build/examples/flights ## build all, then replay the flights through the library
	@build/examples/flights $(ARGS)

build: ## release build: build/lib, build/bin
	cargo build --locked --release -p fastmq-ffi -p fastmq-cli
	@mkdir -p build/lib build/bin
	@install -m 755 $(RELEASE)/libfastmq_c.so build/lib/libfastmq.so.$(VERSION)
	@ln -sf libfastmq.so.$(VERSION) build/lib/$(SONAME)
	@ln -sf $(SONAME) build/lib/libfastmq.so
	@install -m 644 $(RELEASE)/libfastmq_c.a build/lib/libfastmq.a
	@install -m 755 $(RELEASE)/fastmq build/bin/fastmq

static: ## the command as one file without libraries: build/static/fastmq, by musl
	cargo build --locked --release -p fastmq-cli --target $(STATIC_TARGET)
	@mkdir -p build/static
	@install -m 755 $(TARGET)/$(STATIC_TARGET)/release/fastmq build/static/fastmq
	@strip build/static/fastmq

test: ## all tests and checks; STAGES="tidy rust" runs some of them
	@python3 tests/stages/run.py $(STAGES)

bench: build ## the table of rates and latencies; ARGS="..." for benches/run.py
	@$(MAKE) --no-print-directory -C benches
	@python3 benches/run.py $(ARGS)

soak: build build/tests/random_calls ## the long run: random operations, calls, bytes; SECONDS=600
	FASTMQ_SOAK_SECONDS=$(SECONDS) cargo test --locked --release -p fastmq-engine \
		-- --ignored --nocapture soak
	FASTMQ_SOAK_SECONDS=$(SECONDS) cargo test --locked --release -p fastmq --test soak \
		-- --ignored --nocapture soak
	FASTMQ_SOAK_SECONDS=$(SECONDS) build/tests/random_calls | tail -n 3
	fuzz/run.sh $$(($(SECONDS) / 4))
	THOROUGH=1 python3 tests/stages/run.py loom tsan cross asan

header: ## make include/fastmq.h from ffi
	cbindgen --quiet --config ffi/cbindgen.toml --crate fastmq-ffi --output include/fastmq.h ffi

header-check: ## fail if include/fastmq.h is not what make header makes
	@mkdir -p build
	@cbindgen --quiet --config ffi/cbindgen.toml --crate fastmq-ffi --output build/fastmq.h ffi
	@diff -u include/fastmq.h build/fastmq.h

vectors: ## make tests/vectors/*.json by the generators of docs/formats.md and docs/protocol.md
	@python3 tests/vectors/generate.py
	@python3 tests/vectors/protocol.py

audit: ## licences and advisories of the dependencies, where cargo-deny is installed
	@if command -v cargo-deny >/dev/null; then cargo deny check; \
	else echo 'skipped: cargo-deny is not installed (cargo install --locked cargo-deny)'; fi

install: | build/lib/libfastmq.so ## install what is built below PREFIX=/usr/local; DESTDIR goes in front
	@$(INSTALL_NAMES) bash packaging/install.sh install

uninstall: ## take away what make install has installed; the same PREFIX and DESTDIR
	@$(INSTALL_NAMES) bash packaging/install.sh uninstall

abi-check: ## fail if the ABI is not the accepted one, packaging/abi
	@bash packaging/abi/abi.sh check

abi-accept: ## accept the ABI as it is; docs/abi.md says what may change
	@bash packaging/abi/abi.sh accept

fmt: ## format the Rust code
	cargo fmt --all

clean: ## remove build and target
	rm -rf build $(TARGET)

build/lib/libfastmq.so:
	@$(MAKE) --no-print-directory build

build/examples/%: examples/c/%.c include/fastmq.h $(SUPPORT) | build/lib/libfastmq.so
	@mkdir -p $(@D)
	@$(CC) $(C_STRICT) $(CFLAGS) -Iexamples/c $< -o $@ $(C_LINK)

build/tests/%: tests/c/%.c include/fastmq.h $(SUPPORT) | build/lib/libfastmq.so
	@mkdir -p $(@D)
	@$(CC) $(C_STRICT) $(CFLAGS) -Itests/c -Itests/support $< -o $@ $(C_LINK) -ldl

# The library of the sanitized build is found by its path: ASAN_LIB=DIRECTORY.
build/asan/%: tests/c/%.c include/fastmq.h $(SUPPORT)
	@mkdir -p $(@D)
	@$(CC) $(C_STRICT) -O1 -g -fsanitize=address -fno-omit-frame-pointer -Itests/c \
		-Itests/support $< -o $@ -L$(ASAN_LIB) -lfastmq -Wl,-rpath,$(ASAN_LIB) -lpthread -lm -ldl
