// Package tracer watches the kernel unload modules and yields each attempt as
// an [unload.Unload].
//
// The way of an event: kernel hook, gate (is this task unloading?), per-task
// record, ring buffer, [decode], [assembler], unload.Unload. What is hooked is
// decided once, as a [Plan], by looking at the running kernel and trying.
//
//	t, err := tracer.Start(ctx, tracer.Options{})
//	if err != nil {
//		return err // *object.Unable says what the machine lacks, and the remedy
//	}
//	defer t.Close()
//	for u := range t.Unloads() { // until ctx is done
//		fmt.Println(u.Module, time.Duration(u.Duration))
//	}
//	return t.Err()
package tracer
