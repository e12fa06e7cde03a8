# make demo: a spoken call on this machine, no keys.   make test: every check.   make bench: the numbers.   make run: serve.
# Each installs first what a bare Debian 12 lacks; a Rust toolchain (rustup) is assumed.

SHELL := /bin/bash
PACKAGES := build-essential cmake pkg-config python3 python3-venv espeak-ng ca-certificates
VOICED := target/release/voiced
TOOLS := target/tools/cargo/bin
VERSION_deny := 0.20.2
VERSION_fuzz := 0.13.2

.PHONY: demo test audit fuzz bench bench-rooms bench-calls profile soak run build lint doc loom deps tools tools-browser weights

# ROOM=1: the same dialogue in a LiveKit room.
demo: weights $(if $(ROOM),tools)
	$(VOICED) demo $(if $(ROOM),--room)

run: weights
	$(VOICED) serve

build: deps
	cargo build --release --locked -p voiced-daemon

weights: build
	$(VOICED) models fetch

# systemd-analyze tells how exposed the unit is, libfaketime sets a daemon's clock; `deps` is made once, so all that is wanted is named here
test: PACKAGES += systemd libfaketime chromium
test: deps tools tools-browser lint
# the tests' own build, as they want more of some crates than the product does: `cargo build` would compile half of all twice
	cargo test --locked --workspace --no-run
	target/debug/voiced models fetch
	cargo test --locked --workspace
	$(MAKE) loom doc audit

lint: deps
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

doc: deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

# Licences, bans and sources of every dependency, and, where their database can be reached, advisories. `cargo audit` reads
# the same database and would add nothing but a second list of exceptions.
audit: $(TOOLS)/cargo-deny
	$< -L error check licenses bans sources
	@if timeout 20 git ls-remote -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then $< -L error check advisories; \
	else echo "advisories: not checked, their database cannot be reached from here"; fi

# libFuzzer looks for inputs that break the parsers: FUZZ_SECONDS each, or with N=1000000 so many inputs. PARSER=name: one only.
# Nightly's options, on the stable toolchain; no sanitizer, as the parsers have no unsafe code.
FUZZ_SECONDS ?= 60
PARSER ?= $(notdir $(basename $(wildcard fuzz/targets/fuzz_targets/*.rs)))
fuzz: deps $(TOOLS)/cargo-fuzz
	@for parser in $(PARSER); do \
		echo "== $$parser"; mkdir -p fuzz/targets/corpus/$$parser fuzz/seeds/$$parser; \
		RUSTC_BOOTSTRAP=1 $(TOOLS)/cargo-fuzz run --fuzz-dir fuzz/targets -s none $$parser $(CURDIR)/fuzz/targets/corpus/$$parser $(CURDIR)/fuzz/seeds/$$parser -- \
			-max_len=4096 -rss_limit_mb=512 -timeout=5 $(if $(N),-runs=$(N),-max_total_time=$(FUZZ_SECONDS)) -print_final_stats=1 2>&1 \
			| grep -E "^==|error|panicked|Done|stat::number_of_executed|SUMMARY|Test unit"; \
		[ "$${PIPESTATUS[0]}" = 0 ] || exit 1; \
	done

$(TOOLS)/cargo-%:
	@echo "installing cargo-$* under $(CURDIR)/target/tools: some minutes, once"
	@cargo install --locked --quiet --debug cargo-$* --version $(VERSION_$*) --root target/tools/cargo --target-dir target/tools/cargo/build
	@rm -rf target/tools/cargo/build

# Every order in which two threads can meet at what the audio threads share and we wrote ourselves.
loom: deps
	RUSTFLAGS="--cfg loom" cargo test --locked -p voiced-rt --lib --target-dir target/loom

bench: weights tools
	cargo bench --locked -p voiced-benches --bench parts --bench rooms --bench tick

# Rooms on a real livekit-server, beside the official Python SDK: cost, delay, loss, the whole chain. Some six minutes.
bench-rooms: weights tools
	cargo bench --locked -p voiced-benches --bench rooms

# How many calls one core holds: the real daemon on core 0, providers and phones on the others. Some ten minutes.
bench-calls: weights
	cargo bench --locked -p voiced-benches --bench calls

# Where the daemon's CPU time goes with 50 calls, by thread and by part of the tick.
profile: weights
	cargo bench --locked -p voiced-benches --bench calls -- --profile --from 50

# kill -9 at a hundred moments, then SOAK_MINUTES of mixed calls with random faults, and a report under target/soak.
SOAK_MINUTES ?= 10
soak: weights
	@mkdir -p target/soak
	VOICED_KILL_POINTS=100 cargo test --locked -p voiced-daemon --test daemon -- kill:: --nocapture
	$(VOICED) lab soak --minutes $(SOAK_MINUTES) --json target/soak/report.json

# The other side of the room tests: LiveKit's own server and Python SDK, under target/tools.
tools: deps
	@transports/lab/peers/tools.sh server
	@transports/lab/peers/tools.sh sdk

# A browser as the other side: Debian's Chromium with LiveKit's client. Benches need none, and it is big, so `tools` goes without.
tools-browser: PACKAGES += chromium
tools-browser: deps
	@transports/lab/peers/tools.sh browser

# Says what is missing and installs it with apt; as root, or through sudo.
deps:
	@missing=(); for package in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing+=($$package); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing $${missing[*]}"; \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $${missing[*]} >/dev/null; \
	fi
	@command -v cargo >/dev/null || { echo "cargo is missing: install a Rust toolchain with rustup, then run make again"; exit 1; }
