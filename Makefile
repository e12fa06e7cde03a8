# make demo: a spoken call on this machine, no keys.   make test: every check.   make bench: the numbers.   make run: serve.
# Each installs first what a bare Debian 12 lacks; a Rust toolchain (rustup) is assumed.

SHELL := /bin/bash
PACKAGES := build-essential cmake pkg-config python3 python3-venv espeak-ng ca-certificates
VOICED := target/release/voiced

.PHONY: demo test bench bench-calls profile soak run build lint doc loom deps tools tools-browser weights

# ROOM=1: the same dialogue in a LiveKit room.
demo: weights $(if $(ROOM),tools)
	$(VOICED) demo $(if $(ROOM),--room)

run: weights
	$(VOICED) serve

build: deps
	cargo build --release --locked -p voiced-daemon

weights: build
	$(VOICED) models fetch

test: deps tools lint
	cargo build --locked --workspace
	target/debug/voiced models fetch
	cargo test --locked --workspace
	$(MAKE) loom doc

lint: deps
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

doc: deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

# Every order in which two threads can meet at what the audio threads share and we wrote ourselves.
loom: deps
	RUSTFLAGS="--cfg loom" cargo test --locked -p voiced-rt --lib --target-dir target/loom

bench: weights tools
	cargo bench --locked -p voiced-benches --bench parts --bench rooms --bench tick

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

# A browser as the other side: Debian's Chromium with LiveKit's client. It is big, so `tools` goes without.
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
