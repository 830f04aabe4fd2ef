// Package modtrace traces how the kernel unloads a module. The parts are in
// the folders: unload (the model), tracer (from kernel hooks to the model),
// output (from the model to text), cmd/modtrace (the command).
package modtrace

// The BPF programs are compiled by the clang of Debian 12, so that everybody
// gets the same objects; they are committed, and users need Go alone.
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -go-package bpf -output-dir bpf -output-stem unload -target amd64,arm64 -type begin -type dependent -type reference -type end -type callback -type leftover -type wait -type sample -type device_event -type log_event -type waking -type waiter -type slot -type kind -type boundary -type blocker_kind Unload bpf/unload.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -go-package bpf -output-dir bpf -output-stem task -target amd64,arm64 Task bpf/task.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -go-package bpf -output-dir bpf -output-stem holders -target amd64,arm64 -type way -type via Holders bpf/holders.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -go-package bpf -output-dir bpf -output-stem memory -target amd64,arm64 Memory bpf/memory.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -go-package bpf -output-dir bpf -output-stem ledger -target amd64,arm64 -type event -type event_kind -type loss -type page Ledger bpf/ledger.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
