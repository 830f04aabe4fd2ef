package unwind

// Lock says where a mutex or rw_semaphore has its owner, and the first who waits for
// it: offsets in the running kernel.
type Lock struct{ Owner, Waiters uint64 }

// A waiter lies on the stack of its task: links to the next and the previous one, and
// the task (kernel/locking/mutex.h, struct mutex_waiter; kernel/locking/rwsem.c,
// struct rwsem_waiter).
const (
	waiterPrevious = 8
	waiterTask     = 16
	maxWaiters     = 1000
)

// Stacks are aligned to their size (arch/x86/include/asm/page_64_types.h,
// arch/arm64/include/asm/memory.h, THREAD_SIZE).
const stackSize = 16384

// ownerFlags are kept in the lowest bits of an owner's address
// (kernel/locking/mutex.c, kernel/locking/rwsem.c).
const ownerFlags = 7

// Owner finds the lock that a sleeping task waits for, and the task that owns it, by
// their addresses; both are 0 when it does not wait for such a lock, or when what is
// found does not hold together. Of an rw_semaphore that is read, the kernel notes the
// last reader. The task has its address, known says what other addresses are tasks.
func (k *Kernel) Owner(at Place, task uint64, l Lock, known func(uint64) bool) (lock, owner uint64, err error) {
	stack, err := read(k.memory, at.SP, int(stackSize-at.SP%stackSize)/8)
	if err != nil {
		return 0, 0, err
	}
	waiting := map[uint64]bool{}
	for i := range len(stack) - waiterTask/8 {
		if address := at.SP + 8*uint64(i); stack[i+waiterTask/8] == task && k.isLinked(address, stack[i], stack[i+1]) {
			k.addRing(waiting, address)
		}
	}
	if len(waiting) == 0 {
		return 0, 0, nil
	}
	// Whoever waits will have to leave the list again: the lock is at hand.
	for _, lock := range stack {
		if lock%8 != 0 || lock == 0 {
			continue
		}
		first, err := word(k.memory, lock+l.Waiters)
		if err != nil || !waiting[first] {
			continue
		}
		owner, err := word(k.memory, lock+l.Owner)
		if owner &^= ownerFlags; err == nil && known(owner) {
			return lock, owner, nil
		}
	}
	return 0, 0, nil
}

// isLinked says whether neighbours on a list know of what lies at an address.
func (k *Kernel) isLinked(address, next, previous uint64) bool {
	back, err := word(k.memory, next+waiterPrevious)
	if err != nil || back != address {
		return false
	}
	forth, err := word(k.memory, previous)
	return err == nil && forth == address
}

// addRing adds all that are on the same list.
func (k *Kernel) addRing(ring map[uint64]bool, address uint64) {
	for n := 0; n < maxWaiters && !ring[address]; n++ {
		ring[address] = true
		next, err := word(k.memory, address)
		if err != nil {
			return
		}
		address = next
	}
}
