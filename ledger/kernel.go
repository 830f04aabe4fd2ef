package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// kernel is the part of the ledger that the kernel keeps.
type kernel struct {
	*object.Object
	programs []*ebpf.Program
	links    []link.Link
	symbols  *ebpf.Program // names addresses; nil where the kernel has no such thing
	plan     []unload.Hook
	locked   bool // pages have the kernel's lock
}

// hook is a tracepoint that is watched.
type hook struct {
	program, tracepoint, sees string
	required                  bool
}

func hooks() []hook {
	return []hook{
		{"get", "module_get", "references taken", true},
		{"put", "module_put", "references dropped", true},
		{"load", "module_load", "the module is loaded", true},
		{"free", "module_free", "it is unloaded", false},
	}
}

func (h hook) candidate(mechanism string) object.Candidate {
	suffix := map[string]string{object.TPBTF: "_tp", object.RawTP: "_raw"}[mechanism]
	return object.Candidate{Program: h.program + suffix, Mechanism: mechanism, Function: h.tracepoint}
}

// way is how all programs are loaded: they share a lock, which is either the kernel's
// or their own.
type way struct {
	mechanism string
	locked    bool // by the kernel's
}

func ways() []way {
	return []way{{object.TPBTF, true}, {object.TPBTF, false}, {object.RawTP, false}}
}

// openKernel loads and attaches the programs, which stay inert until they are armed.
// The error is an [*object.Unable] when the machine is at fault.
func openKernel(module string, o Options) (*kernel, error) {
	if err := object.Preflight(o.BTF); err != nil {
		return nil, err
	}
	var failed error
	reason := ""
	for _, w := range ways() {
		if !object.Allowed(w.mechanism, o.Mechanisms) {
			continue
		}
		k, err := openBy(w, module, o)
		if err == nil {
			k.planned(w.mechanism, reason)
			return k, nil
		}
		failed = errors.Join(failed, err)
		reason += w.mechanism + ": " + object.Shortly(err) + "; "
		if w.locked && errors.Is(err, unix.EINVAL) {
			reason = w.mechanism + " with the kernel's lock: not taken by this kernel; "
		}
	}
	var unable *object.Unable
	if errors.As(failed, &unable) {
		return nil, unable
	}
	return nil, object.Explain("attaching to the tracepoints module_get and module_put", failed)
}

func openBy(w way, module string, o Options) (_ *kernel, err error) {
	spec, err := bpf.LoadLedger()
	if err != nil {
		return nil, fmt.Errorf("reading the BPF object: %w", err)
	}
	var targets []string
	for _, h := range hooks() {
		targets = append(targets, h.candidate(w.mechanism).Target())
	}
	k := &kernel{locked: w.locked}
	if k.Object, err = object.Open(spec, o.BTF, targets...); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
		}
	}()
	if err := configure(spec, module, o, k.locked); err != nil {
		return nil, err
	}
	if err := k.CreateMaps(); err != nil {
		return nil, err
	}
	for _, h := range hooks() {
		if err := k.attach(h.candidate(w.mechanism)); err != nil && h.required {
			return nil, err
		}
	}
	// Without it, names come from elsewhere.
	k.symbols, _ = k.Load(object.Candidate{Program: bpf.LedgerProgSymbols, Mechanism: object.Run})
	k.Forget()
	return k, nil
}

func configure(spec *ebpf.CollectionSpec, module string, o Options, locked bool) error {
	ring := spec.Maps[bpf.LedgerMapEvents]
	if o.RingBytes != 0 {
		ring.MaxEntries = uint32(o.RingBytes)
	}
	if o.Pages != 0 {
		spec.Maps[bpf.LedgerMapPages].MaxEntries = uint32(o.Pages)
	}
	if !locked {
		// A map whose type is not told has no lock that the verifier knows of.
		pages := spec.Maps[bpf.LedgerMapPages]
		pages.Key, pages.Value = nil, nil
	}
	var name [56]uint8
	copy(name[:len(name)-1], module)
	for variable, value := range map[string]any{
		bpf.LedgerVarCanLock: locked, bpf.LedgerVarWanted: name, bpf.LedgerVarRaw: o.Raw, bpf.LedgerVarWakeAtBytes: ring.MaxEntries / 4,
	} {
		if err := spec.Variables[variable].Set(value); err != nil {
			return fmt.Errorf("setting %s: %w", variable, err)
		}
	}
	return nil
}

func (k *kernel) attach(c object.Candidate) error {
	p, err := k.Load(c)
	if err != nil {
		return fmt.Errorf("loading %s: %w", c.Program, err)
	}
	l, err := object.Attach(c, p)
	if err != nil {
		return errors.Join(fmt.Errorf("attaching %s: %w", c.Program, err), p.Close())
	}
	k.programs = append(k.programs, p)
	k.links = append(k.links, l)
	return nil
}

// planned notes by which means everything is seen.
func (k *kernel) planned(mechanism, reason string) {
	status := unload.StatusOK
	if reason != "" {
		status = unload.StatusFallback
		reason = reason[:len(reason)-len("; ")]
	}
	for _, h := range hooks() {
		k.plan = append(k.plan, unload.Hook{
			Sees: h.sees, Function: h.tracepoint, Mechanism: mechanism, Required: h.required, Status: status, Reason: reason,
		})
	}
}

// Inspect says by which means references would be watched on this kernel.
func Inspect(o Options) (plan []unload.Hook, err error) {
	k, err := openKernel("", o)
	if err == nil {
		return k.plan, k.close()
	}
	var unable *object.Unable
	if !errors.As(err, &unable) {
		return nil, err
	}
	for _, h := range hooks() {
		plan = append(plan, unload.Hook{Sees: h.sees, Function: h.tracepoint, Required: h.required, Status: unload.StatusMissing, Reason: unable.What})
	}
	return plan, nil
}

// asker gives the means to name kernel addresses.
func (k *kernel) asker() func([]uint64) []string {
	if k.symbols != nil {
		return symbols.AskKernel(k.symbols, k.Vars[bpf.LedgerVarAsked])
	}
	return symbols.Kallsyms()
}

func (k *kernel) arm(on bool) error {
	if err := k.Vars[bpf.LedgerVarArmed].Set(on); err != nil {
		return fmt.Errorf("arming the programs: %w", err)
	}
	return nil
}

// state is how far the kernel's part has come.
type state struct {
	totals bpf.LedgerTotals
	loads  uint32
	loader uint32
}

func (k *kernel) state() (s state, err error) {
	err = errors.Join(
		k.Vars[bpf.LedgerVarTotals].Get(&s.totals),
		k.Vars[bpf.LedgerVarLoads].Get(&s.loads),
		k.Vars[bpf.LedgerVarLoader].Get(&s.loader),
	)
	if err != nil {
		return s, fmt.Errorf("reading the ledger: %w", err)
	}
	return s, nil
}

// count is how many references there should be, after so many in the beginning.
func (s state) count(initial int64) int64 {
	t := s.totals
	if s.loads == 0 {
		return initial + int64(t.Gets-t.Puts)
	}
	n := int64(t.Gets-t.GetsBefore) - int64(t.Puts-t.PutsBefore)
	if s.loader != 0 {
		n++ // the loading itself
	}
	return n
}

// waitForPrograms waits for those that are on their way. The kernel counts a reference
// and then runs programs for it (kernel/module/main.c, module_put), mostly with
// preemption disabled: a grace period is over when they have run.
func waitForPrograms() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL, a grace period (kernel/sched/membarrier.c)
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		time.Sleep(20 * time.Millisecond) // not with nohz_full
	}
}

// pages reads the page of each process, whole where the kernel has a lock for that.
func (k *kernel) pages() (map[bpf.LedgerPageKey]*bpf.LedgerPage, error) {
	all := map[bpf.LedgerPageKey]*bpf.LedgerPage{}
	m := k.Maps[bpf.LedgerMapPages]
	var key bpf.LedgerPageKey
	err := m.NextKey(nil, &key)
	for ; err == nil; err = m.NextKey(key, &key) {
		if all[key] != nil {
			break // an entry went meanwhile, and it begins anew
		}
		page, err := k.page(key)
		if err != nil {
			return nil, err
		}
		if page != nil {
			all[key] = page
		}
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return all, nil
}

// page reads the page of one process, nil if it has none.
func (k *kernel) page(key bpf.LedgerPageKey) (*bpf.LedgerPage, error) {
	flags := ebpf.MapLookupFlags(0)
	if k.locked {
		flags = ebpf.LookupLock
	}
	page := &bpf.LedgerPage{}
	err := k.Maps[bpf.LedgerMapPages].LookupWithFlags(key, page, flags)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return page, nil
}

// stack reads the stack in which a process was at a place for the first time.
func (k *kernel) stack(key bpf.LedgerStackKey) []uint64 {
	var s bpf.LedgerStack
	if err := k.Maps[bpf.LedgerMapStacks].Lookup(key, &s); err != nil {
		return nil // it is counted among what was lost
	}
	for i, a := range s.Frame {
		if a == 0 {
			return s.Frame[:i]
		}
	}
	return s.Frame[:]
}

// drop tears out the page of a process.
func (k *kernel) drop(key bpf.LedgerPageKey, page *bpf.LedgerPage) error {
	err := k.Maps[bpf.LedgerMapPages].Delete(key)
	for _, s := range page.Site {
		if s.Address == 0 {
			break
		}
		gone := k.Maps[bpf.LedgerMapStacks].Delete(bpf.LedgerStackKey{Pid: key.Pid, Load: key.Load, Address: s.Address})
		if !errors.Is(gone, ebpf.ErrKeyNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if err != nil {
		return fmt.Errorf("tearing out a page of the ledger: %w", err)
	}
	return nil
}

// lossNames names for users what could not be written down.
func lossNames() map[bpf.LedgerLoss]string {
	return map[bpf.LedgerLoss]string{
		bpf.LedgerLossLOSS_EVENT: "event",
		bpf.LedgerLossLOSS_PAGE:  "process",
		bpf.LedgerLossLOSS_SITE:  "call_site",
		bpf.LedgerLossLOSS_BUSY:  "busy",
		bpf.LedgerLossLOSS_STACK: "stack",
	}
}

func (k *kernel) lost() map[string]int64 {
	var values [bpf.LedgerLossLOSSES]uint64
	counts := map[string]int64{}
	if err := k.Vars[bpf.LedgerVarLost].Get(&values); err != nil {
		return counts
	}
	for loss, name := range lossNames() {
		counts[name] = int64(values[loss])
	}
	return counts
}

// missed is how often the kernel did not run a program.
func (k *kernel) missed() (n int64) {
	for _, p := range k.programs {
		n += object.Misses(p)
	}
	return n
}

func (k *kernel) close() error {
	var errs []error
	for _, l := range k.links {
		errs = append(errs, l.Close())
	}
	for _, p := range k.programs {
		errs = append(errs, p.Close())
	}
	if k.symbols != nil {
		errs = append(errs, k.symbols.Close())
	}
	k.links, k.programs, k.symbols = nil, nil, nil
	return errors.Join(append(errs, k.Close())...)
}
