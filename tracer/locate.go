package tracer

import (
	"github.com/cilium/ebpf"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/symbols"
)

// located has the variables that hold the addresses of symbols.
var located = map[string]string{
	"module_notify_list":   bpf.UnloadVarModuleChain,
	"async_global_pending": bpf.UnloadVarAsyncPending,
	"rcu_barrier":          bpf.UnloadVarRcuBarrierAt,
	"rcu_data":             bpf.UnloadVarRcuDataAt,
	"__per_cpu_offset":     bpf.UnloadVarPerCpuOffsetAt,
}

// locate looks up what programs read at its address: by a program of its own, or
// in /proc/kallsyms, which takes a tenth of a second, where the kernel has no such
// thing. What is not found stays unread.
func (l *loader) locate() {
	if l.located {
		return
	}
	l.located = true
	if p, err := l.Load(object.Candidate{Program: "locate", Mechanism: object.Run}); err == nil {
		_, _ = p.Run(&ebpf.RunOptions{}) // a failure shows as nothing found
		_ = p.Close()
		return
	}
	where := map[string]*ebpf.Variable{}
	for symbol, variable := range located {
		where[symbol] = l.Vars[variable]
	}
	_ = symbols.Each(func(s symbols.Symbol) bool {
		if v := where[string(s.Name)]; v != nil && len(s.Module) == 0 {
			_ = v.Set(s.Address) // like one that is not found
			delete(where, string(s.Name))
		}
		return len(where) > 0
	})
}
