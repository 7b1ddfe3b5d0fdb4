# Everything that outgrows three lines is a subcommand of iolab.
.PHONY: build test bench-all bench-quick report

build:
	cargo build --release --workspace

test:
	cargo build --workspace --locked
	cargo test --workspace --locked

bench-all: build
	target/release/iolab bench --budget 10m

bench-quick: build
	target/release/iolab bench --preset quick

# REPORT.md at the top is rendered from the one result folder that is committed.
report: build
	target/release/iolab report $(shell git ls-files 'results/*/results.json') --output REPORT.md --fill README.md
