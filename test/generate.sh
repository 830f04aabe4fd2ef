#!/usr/bin/env bash
# Compiles the BPF programs and makes their Go bindings, by the compiler of
# Debian 12, so that everybody gets the same bytes. With --check, says whether
# the committed files are what their sources make, and changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

./test/need.sh generate clang-14 llvm-strip-14 clang-format-14 /usr/include/bpf/bpf_helpers.h /usr/include/linux/bpf.h -- \
	clang-14 llvm-14 clang-format-14 libbpf-dev linux-libc-dev

if [ "${1:-}" != --check ]; then
	exec go generate ./...
fi

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
git ls-files -z -- '*.go' go.mod go.sum bpf unload | xargs -0 cp --parents -t "$tree"
(cd "$tree" && rm -f bpf/*.o bpf/*_bpfel.go && go generate .)
for file in bpf/*.o bpf/*_bpfel.go; do
	if ! cmp -s "$file" "$tree/$file"; then
		echo "generate: $file is not what its sources make; run: make generate" >&2
		exit 1
	fi
done
