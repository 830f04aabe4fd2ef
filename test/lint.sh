#!/usr/bin/env bash
# Formatters and linters, each at a fixed version, and whether the generated
# files match their sources. Says which step fails.
set -euo pipefail
cd "$(dirname "$0")/.."

golangci=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

step() {
	echo "lint: $1" >&2
	shift
	"$@" || { echo "lint: failed: $*" >&2; exit 1; }
}

nothing() {
	local out
	out=$("$@")
	[ -z "$out" ] || { echo "$out" >&2; return 1; }
}

step 'generated files match their sources' ./test/generate.sh --check
step 'clang-format' clang-format-14 --dry-run -Werror bpf/*.[ch] test/fixtures/src/*.[ch]
step 'gofmt' nothing gofmt -l .
step 'go vet' go vet ./...
step 'reports can be made on macOS' env GOOS=darwin go vet ./cmd/modtrace
step 'reports can be made on Windows' env GOOS=windows go vet ./cmd/modtrace
step 'go.mod is tidy' go mod tidy -diff
step 'staticcheck' go run "$staticcheck" ./...
step 'golangci-lint (built once, which takes a minute)' go run "$golangci" run ./...
