# Requires only cargo: see README.md.
PREFIX ?= /usr/local
HOST   := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BINARY := target/release/tcptrace
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
ARGS   ?=

# With an explicit target, +crt-static does not apply to build scripts and procedural macros.
TARGET_VAR := CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)
export $(TARGET_VAR)_RUSTFLAGS = -C target-feature=+crt-static
# Live tests need root; the others also pass as root.
ifneq ($(SUDO),)
export $(TARGET_VAR)_RUNNER = sudo -E
endif

PACKAGES      := clang libelf-dev zlib1g-dev pkg-config gcc make
TEST_PACKAGES := busybox-static iproute2 libcap2-bin jq mandoc dnsmasq-base bind9-dnsutils curl python3 strace

# The release binary must not depend on the build directory: tests/reproducible.
REMAP := --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo

all: target/release/tcptrace

target/release/tcptrace: FORCE | deps
	$(TARGET_VAR)_RUSTFLAGS="$($(TARGET_VAR)_RUSTFLAGS) $(REMAP)" cargo build --release --target $(HOST)
	@mkdir -p target/release
	@ln -sf ../$(HOST)/release/tcptrace $@

# Installs only missing packages; without any, apt is not called.
define install_packages
	@missing=$$(for name in $(1); do \
		dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || echo $$name; \
	done); \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { echo "please install the equivalents of:" $$missing >&2; exit 1; }; \
	echo "installing:" $$missing; \
	$(SUDO) apt-get update -q && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing
endef

deps:
	$(call install_packages,$(PACKAGES))

test-deps: deps
	$(call install_packages,$(TEST_PACKAGES))

run: all
	$(SUDO) target/release/tcptrace $(ARGS)

test: test-deps
	cargo test --target $(HOST)

# The live tests on other kernels, in virtual machines. Installs nothing, but reports missing packages.
test-kernels:
	tests/kernels/check
	tests/kernels/run --again --limit 450

# The overhead compared with other tools: instructions in the kernel if there are virtual machines, reader, start, end,
# loss, slowdown, memory; results in target/bench.json. BENCH=smoke is one short round that fails if any event is lost.
BENCH ?=
bench: COMPARE = cargo bench --no-run --bench compare --target $(HOST) $(if $(BENCH),--profile dev)
bench:
	@mkdir -p target; rm -f $(KERNEL_JSON)
	@test -n "$(BENCH)" || ! type qemu-system-x86_64 >/dev/null 2>&1 || $(MAKE) bench-kernel PLAIN=1 || true
	@bench=$$($(COMPARE) 2>&1 | sed -n 's/^ *Executable .* (\(.*\))$$/\1/p'); \
	test -n "$$bench" || exec $(COMPARE); \
	$(SUDO) env BENCH='$(BENCH)' "$$bench"

# The cost in the kernel, in instructions, compared with libbpf-tools, in a virtual machine that counts them.
# ONLY=tracepoints measures only these, PLAIN=1 no options; EACH=1 shows each program.
# Results in target/bench-kernel.json.
BENCH_KERNEL ?= 6.12
KERNEL_JSON  := target/bench-kernel.json
PEERS        := $(wildcard /usr/sbin/tcplife /usr/sbin/tcpstates /usr/sbin/tcptracer)
bench-kernel: SHELL := bash
bench-kernel: .SHELLFLAGS := -o pipefail -c
bench-kernel:
	@test -n "$(PEERS)" || echo "no tools to compare with: apt-get install libbpf-tools" >&2
	@bench=$$(cargo bench --no-run --profile dev --bench kernel --target $(HOST) 2>&1 | sed -n 's/^ *Executable .* (\(.*\))$$/\1/p'); \
	test -n "$$bench" || exec cargo bench --no-run --profile dev --bench kernel --target $(HOST); \
	tests/kernels/run --kernel $(BENCH_KERNEL) --count-instructions --limit 900 --add "$$bench" --add "$${bench%/deps/*}/tcptrace" \
		$(PEERS:%=--add %) --exec "ONLY='$(ONLY)' PLAIN=$(PLAIN) EACH=$(EACH) $$(realpath $$bench)" | \
		tee >(sed -n 's/^json: //p' > $(KERNEL_JSON)) | grep --line-buffered -v '^json: '

# The demo of docs/fleet.md: real connections, multiplied to EVENTS in chdb (ClickHouse as a library), and ten queries.
EVENTS ?= 2000000
FLEET  := target/fleet
fleet-demo: all
	@test -x $(FLEET)/bin/python || python3 -m venv $(FLEET)
	@$(FLEET)/bin/python -c 'import chdb' 2>/dev/null || $(FLEET)/bin/pip install -q chdb
	$(SUDO) $(FLEET)/bin/python docs/fleet/demo $(BINARY) $(EVENTS) $(FLEET)/data

# Half an hour of 2,000 connections per second, as root, checking for leaks and losses. MINUTES sets the duration.
MINUTES ?= 30
soak: all
	$(SUDO) tests/soak $(MINUTES)

# Runs each fuzz target for SECONDS with libFuzzer; needs a C++ compiler.
SECONDS ?= 600
fuzz:
	fuzz/run $(SECONDS)

lint:
	cargo fmt --check
	cargo clippy --all-targets --target $(HOST) -- -D warnings
	cargo clippy --target $(HOST) -- -D warnings # as shipped, without BPF programs for tests
	clang-format --dry-run -Werror src/bpf/*.c src/bpf/*.h
	tests/headers
	cargo test --quiet --target $(HOST) --test structure
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --document-private-items --target $(HOST)
	tests/msrv
	shellcheck .ci/run docs/fleet/workload fuzz/run tests/headers tests/msrv tests/reproducible $(addprefix tests/kernels/,run check fetch init)

# Checks the licences, sources and versions of dependencies against deny.toml.
deny:
	cargo deny --version >/dev/null 2>&1 || \
		env -u $(TARGET_VAR)_RUSTFLAGS cargo install --debug --locked --no-default-features cargo-deny
	cargo deny check bans licenses sources

# Regenerates the manual page after changes to an option, the schema or man/*.in.
man:
	UPDATE=1 cargo test --target $(HOST) --test docs

SHARE       := $(DESTDIR)$(PREFIX)/share
COMPLETIONS := $(SHARE)/bash-completion/completions/tcptrace \
	$(SHARE)/zsh/site-functions/_tcptrace \
	$(SHARE)/fish/vendor_completions.d/tcptrace.fish

# `make && sudo make install`: root needs no cargo if the binary has been built.
install: $(if $(wildcard $(BINARY)),,all)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/tcptrace
	install -D -m 644 man/tcptrace.8 $(SHARE)/man/man8/tcptrace.8
	mkdir -p $(dir $(COMPLETIONS))
	$(BINARY) --completions bash > $(word 1,$(COMPLETIONS))
	$(BINARY) --completions zsh > $(word 2,$(COMPLETIONS))
	$(BINARY) --completions fish > $(word 3,$(COMPLETIONS))

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/tcptrace $(SHARE)/man/man8/tcptrace.8 $(COMPLETIONS)

# Builds target/debian/tcptrace_VERSION_ARCH.deb, clean for lintian except for dist/lintian-overrides.
# cargo-deb is built without our flags: its procedural macros cannot be static.
deb: all
	cargo deb --version >/dev/null 2>&1 || env -u $(TARGET_VAR)_RUSTFLAGS cargo install --locked cargo-deb
	mkdir -p target/completions target/debian
	$(BINARY) --completions bash > target/completions/tcptrace
	$(BINARY) --completions zsh > target/completions/_tcptrace
	$(BINARY) --completions fish > target/completions/tcptrace.fish
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml); \
	author=$$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml); \
	printf 'tcptrace (%s-1) unstable; urgency=medium\n\n  * New release, see CHANGELOG.md.\n\n -- %s  %s\n' \
		"$$version" "$$author" "$$(date -R)" > target/debian/changelog
	gzip -9nc CHANGELOG.md > target/debian/changelog.gz
	{ printf '%s\n' 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/' \
		'Upstream-Name: tcptrace' '' 'Files: *' 'Copyright: 2026 The tcptrace authors' 'License: Expat and others'; \
		sed 's/^$$/./; s/^/ /' LICENSE; } > target/debian/copyright
	cargo deb --no-build --no-strip --target $(HOST) --output target/debian/

clean:
	cargo clean

FORCE:
.PHONY: all deps test-deps run test test-kernels bench bench-kernel fleet-demo soak fuzz lint deny man install uninstall deb clean FORCE
