package tracer

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/modtrace/modtrace/object"
)

// locate looks up what programs read at its address: by a program of its own, or
// in /proc/kallsyms, which takes a tenth of a second, where the kernel has no such
// thing. What is not found stays unread.
func (l *loader) locate() {
	if l.located {
		return
	}
	l.located = true
	if p, err := l.Load(object.Candidate{Program: "locate"}); err == nil {
		_, _ = p.Run(&ebpf.RunOptions{}) // a failure shows as nothing found
		_ = p.Close()
		return
	}
	where := map[string]*ebpf.Variable{
		"module_notify_list": l.Vars["module_chain"], "async_global_pending": l.Vars["async_pending"],
	}
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || where[fields[2]] == nil {
			continue
		}
		if address, err := strconv.ParseUint(fields[0], 16, 64); err == nil {
			_ = where[fields[2]].Set(address) // like one that is not found
		}
	}
}
