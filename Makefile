# Everything that outgrows three lines is a subcommand of iolab.
.PHONY: build test test-quiet fuzz conformance soak bench-all bench-quick bench-peers check-instrument report laws lessons grade book

build:
	cargo build --release --workspace

test:
	cargo build --workspace --locked
	cargo test --workspace --locked

# Tests that only times can decide: for a machine that does nothing else.
test-quiet:
	cargo build --workspace --locked
	cargo test --workspace --locked -- --ignored

# Cases for whole connections, for an hour (SECONDS=600: shorter); other ones with SEED=2. A case that fails is cut down and kept.
fuzz:
	FUZZ_SECONDS=$(or $(SECONDS),3600) FUZZ_SEED=$(or $(SEED),1) cargo test --profile fuzz --locked -p conn --test fuzz -- --nocapture

# Suites and clients that others wrote, against every server: Autobahn, nghttp, h2load, curl, chromium. MODELS="epoll uring"
conformance: build
	scripts/conformance/run $(MODELS)

# Mixed traffic on every model, then: memory, descriptors, counters. SECONDS=60 for a shorter one, which does not judge memory.
soak: build
	target/release/iolab soak --time $(or $(SECONDS),600)s

# Every experiment: a question, a picture over time, a conclusion. Files: results/lessons/NAME. With OUT=results/FOLDER
# beside a result, and the traces of all models too: the report shows them.
lessons: build
	target/release/iolab experiment all $(if $(OUT),--out $(OUT)/lessons)
	$(if $(OUT),target/release/iolab trace all --out $(OUT)/lessons/trace >/dev/null)

bench-all: build
	target/release/iolab bench --budget 13m

bench-quick: build
	target/release/iolab bench --preset quick

# Other servers through the same contract. Says what is missing and why; YES=1 (as root) installs it.
PEERS = epoll,uring,nginx,nginx+http2=on,h2o,hyper,hyper+http2=on,may,apache+mpm=prefork,apache+mpm=worker,apache+mpm=event
bench-peers: build
	YES=$(YES) scripts/peers/install
	cargo build --release --locked --manifest-path scripts/peers/rust/Cargo.toml --target-dir target/peers
	scripts/peers/same-sockets target/release/iolab bench --servers scripts/peers:target/peers/release --models $(PEERS) \
	    --workloads http-keepalive,http-pipelined,http-connect,h2-streams,h2-one,file-100k

# The instrument tested on itself; OUT=results/FOLDER puts instrument.json beside a result.
check-instrument: build
	target/release/iolab check-instrument $(if $(OUT),--out $(OUT))

# REPORT.md at the top is rendered from book/en and the one result folder that is committed, REPORT.zh.md from book/zh.
RESULT = $(dir $(shell git ls-files 'results/*/results.json.gz'))
report: build
	target/release/iolab report $(RESULT) --output REPORT.md --fill README.md
	target/release/iolab report $(RESULT) --output REPORT.zh.md --language zh

# The laws of servers, each with bounds fixed in advance: LAWS="L1 L10" for some of them.
laws: build
	target/release/iolab laws $(LAWS)

# Points for a server of your own (book/assignment): SERVER=path/to/serve-mine, CASE=NAME for one case.
grade:
	@scripts/grade "$(SERVER)" "$(CASE)"

# The book as a site that needs no network: target/book/index.html.
book:
	cargo build --release --locked --manifest-path scripts/book/Cargo.toml --target-dir target/book-tool
	target/book-tool/release/book
