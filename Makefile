# Everything that the project does with itself. What a target needs that is not
# on the machine, it installs (as root, on Debian), or says what to install.

GO      ?= go
LAB     := $(GO) run ./test/cmd/lab

.DEFAULT_GOAL := build
.PHONY: build demo test unit lint lab matrix budget bench shell generate fuzz clean help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build ./modtrace
	CGO_ENABLED=0 $(GO) build -trimpath -o modtrace ./cmd/modtrace

demo: ## boot a real kernel and unload modules under modtrace
	$(LAB) demo

test: lint unit lab ## all tests: linters, unit tests, and every kernel of the matrix

unit: ## the tests that need no kernel
	@./test/need.sh unit gcc /usr/include/stdlib.h -- gcc libc6-dev # for the race detector
	CGO_ENABLED=1 $(GO) test -race -count=1 ./...

lint: ## formatters and linters, and that generated files match their sources
	./test/lint.sh

lab: ## boot every kernel of the matrix and run the scenarios in it
	@echo "lab: kernels, compilers and the emulator are fetched once; then every kernel is booted"
	MODTRACE_LAB=1 $(GO) test -count=1 ./test/lab/... -parallel 4 -timeout 40m
	@$(MAKE) --no-print-directory matrix budget

# A machine is emulated by one thread. With more of them than processors, the clocks of the
# guests fall behind.
matrix:
	MODTRACE_LAB=1 $(GO) test -count=1 ./test/matrix -v -parallel $$(nproc) -timeout 80m

budget:
	MODTRACE_LAB=1 $(GO) test -count=1 ./test/bench -v -timeout 60m

bench: ## what tracing costs, beside other tracers, counted in instructions
	$(GO) run ./test/cmd/bench

shell: ## a prompt on a real kernel with modtrace inside (KERNEL=amd64-6.12)
	$(LAB) shell $(KERNEL)

generate: ## compile the BPF programs and make their Go bindings
	./test/generate.sh

fuzz: ## fuzz the decoder of events for a minute
	$(GO) test ./tracer -run '^$$' -fuzz FuzzDecode -fuzztime 1m

clean: ## remove what was built here; the lab's cache stays
	rm -rf modtrace build
