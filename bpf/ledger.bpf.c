// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Who takes references on one module and who drops them. Each process has a page
// of the ledger: the places in which it took some, and those that it holds. All that
// a get or put does is to find its process' page and to write on it, under the
// page's lock: one look-up in one map.

// clang-format off
//go:build ignore

#include "kernel.h"
#include "symbol.h"
// clang-format on

#define MODULE_NAME 56 // of struct module on 64-bit machines
#define COMM_LEN 16
#define FRAMES 32 // of a stack
#define SITES 16  // that a process takes or drops references in
#define OPEN 32	  // references that a process holds, each with its time
#define PAGES 2048
#define STACKS 8192

// Fixed before loading.

// The module that is asked about, filled up with zeros.
volatile const __u8 wanted[MODULE_NAME] __attribute__((aligned(8)));
// Whether programs may use the kernel's lock.
volatile const bool can_lock = true;
// Send each get and put.
volatile const bool raw = false;
// The reader is woken when so many bytes wait for it.
volatile const __u32 wake_at_bytes = 256 * 1024;

// Programs do nothing until this is set, after the last one is attached.
volatile bool armed;

// How often the module was loaded since: what is known of one load says nothing of
// the next.
volatile __u32 loads;
// Who loads it now, or 0.
volatile __u32 loader;

// All gets and puts, and how many there had been when the module was last loaded.
struct totals {
	__u64 gets, puts;
	__u64 gets_before, puts_before;
};
struct totals totals;

// Why something of the ledger was lost.
enum loss {
	LOSS_EVENT, // no room in the ring for an event
	LOSS_PAGE,  // no page for one more process
	LOSS_SITE,  // no room on the page for one more place
	LOSS_BUSY,  // the page was in use for too long
	LOSS_STACK, // no room for one more stack
	LOSSES,
};
__u64 lost[LOSSES];

// What one process has done in one place. A reference belongs to the place where it
// was taken.
struct site {
	__u64 address; // after the call
	__u64 gets;
	__u64 puts;	// of those, dropped by the same process
	__u64 strays;	// puts made here by a process that held none
	__u64 gets_sum; // of the times of those gets, since the ledger began
	__u64 puts_sum;
	__u64 held_max;
	__u64 first, last;
	__u64 dropped_at; // where the last was dropped
	__u64 untimed;	  // held, with no room to note since when
};

// A reference that is held.
struct reference {
	__u64 time;
	__u32 tid;
	__u32 site;
};

// The page of a process. The lock's name is the kernel's, which looks for it.
struct page {
	struct bpf_spin_lock lock;
	__u32 sites; // that are used
	__u32 open;  // likewise
	__u32 untimed;
	__u32 last_untimed;  // where the last of these was taken
	__u32 held;	     // sites of which some are held
	__u64 ambiguous;     // puts that may be of another place than that where they were noted
	__u8 comm[COMM_LEN]; // when it took the first
	struct site site[SITES];
	struct reference reference[OPEN]; // the oldest first
};

struct page_key {
	__u32 pid;
	__u32 load;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PAGES);
	__type(key, struct page_key);
	__type(value, struct page);
} pages SEC(".maps");

struct stack_key {
	__u32 pid;
	__u32 load;
	__u64 address;
};

struct stack {
	__u64 frame[FRAMES]; // innermost first, 0 behind the last
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STACKS);
	__type(key, struct stack_key);
	__type(value, struct stack);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 1024);
} events SEC(".maps");

enum event_kind {
	EVENT_GET,
	EVENT_PUT,
	EVENT_SITE, // a process is in a place for the first time
	EVENT_LOAD,
	EVENT_FREE,
};

struct event {
	__u64 time;
	__u64 address;
	__u64 taken;	// when the reference that is put was taken, 0: not known
	__u64 taken_at; // where
	__u32 kind;
	__u32 pid, tid;
	__u32 load;
	__u8 comm[COMM_LEN];
};

// The types are kept in the object for the Go bindings.
const struct event *unused_event __attribute__((unused));
const enum event_kind *unused_event_kind __attribute__((unused));
const enum loss *unused_loss __attribute__((unused));
const struct page *unused_page __attribute__((unused));

// What new entries are made of; there is no room for them on the stack.
static const __u64 blank_page[(sizeof(struct page) + 7) / 8];
static const __u64 blank_stack[(sizeof(struct stack) + 7) / 8];

static __always_inline void lose(enum loss why)
{
	__sync_fetch_and_add(&lost[why], 1);
}

// is_wanted compares names and not addresses, which the next module may have. direct
// says that the verifier knows the pointer's type.
static __always_inline bool is_wanted(bool direct, struct module *mod)
{
	const volatile __u64 *want = (const volatile __u64 *)wanted;
	const __u64 *name = (const __u64 *)__builtin_preserve_access_index(&mod->name);
	__u64 copy[MODULE_NAME / sizeof(__u64)];

	if (!direct) {
		bpf_probe_read_kernel(copy, sizeof(copy), name);
		name = copy;
	}
	for (unsigned int i = 0; i < MODULE_NAME / sizeof(__u64); i++) {
		__u64 part = want[i];

		if (name[i] != part)
			return false;
		if (part >> 56 == 0) // the name ends here; behind it may be anything
			return true;
	}
	return true;
}

// TRIES bounds how long a page is waited for where the kernel offers no lock.
#define TRIES 64

// take locks a page. Not all programs may use the kernel's lock (kernel/bpf/verifier.c,
// is_tracing_prog_type; none of these in 5.10); for them the map is made without one,
// and what has its place counts its owners.
static __always_inline bool take(struct page *p)
{
	volatile __u32 *owners = (volatile __u32 *)p;

	if (can_lock) {
		bpf_spin_lock(&p->lock);
		return true;
	}
	for (int i = 0; i < TRIES; i++) {
		__sync_fetch_and_add(owners, 1);
		if (*owners == 1)
			return true;
		__sync_fetch_and_add(owners, -1);
	}
	return false;
}

static __always_inline void release(struct page *p)
{
	if (can_lock)
		bpf_spin_unlock(&p->lock);
	else
		__sync_fetch_and_add((__u32 *)p, -1);
}

// page_of gives the page of a process, a new one if it has none.
static __always_inline struct page *page_of(const struct page_key *key)
{
	struct page *p = bpf_map_lookup_elem(&pages, key);

	if (p)
		return p;
	bpf_map_update_elem(&pages, key, blank_page, BPF_NOEXIST); // or another thread has
	p = bpf_map_lookup_elem(&pages, key);
	if (!p)
		return NULL;
	bpf_get_current_comm(p->comm, sizeof(p->comm));
	return p;
}

// site_of finds a place on a page, or begins it. The number is SITES when the page is
// full.
static __always_inline __u32 site_of(struct page *p, __u64 address, __u64 now, bool *begun)
{
	__u32 i;

	for (i = 0; i < SITES; i++) {
		if (p->site[i].address == address)
			return i;
		if (!p->site[i].address) {
			p->site[i].address = address;
			p->site[i].first = now;
			p->sites = i + 1;
			*begun = true;
			return i;
		}
	}
	return SITES;
}

static __always_inline void note_get(struct page *p, __u32 i, __u32 tid, __u64 now)
{
	struct site *s = &p->site[i & (SITES - 1)];

	if (s->gets == s->puts)
		p->held++;
	s->gets++;
	s->gets_sum += now;
	s->last = now;
	if (p->open < OPEN) {
		struct reference *r = &p->reference[p->open & (OPEN - 1)];

		r->time = now;
		r->tid = tid;
		r->site = i;
		p->open++;
		return;
	}
	s->untimed++;
	p->untimed++;
	p->last_untimed = i;
}

#define NEAR 4 // references that are looked at for one of the thread's own

// pick takes from a page the reference that is put: the last that the thread took, or
// else the last that the process did. It must have some.
static __always_inline void pick(struct page *p, __u32 tid, struct reference *picked)
{
	__u32 top = p->open - 1, i, n;

	i = top;
	for (n = 0; n < NEAR && n <= top; n++) {
		if (p->reference[(top - n) & (OPEN - 1)].tid == tid) {
			i = top - n;
			break;
		}
	}
	*picked = p->reference[i & (OPEN - 1)];
	for (n = 0; n < NEAR && i < top; n++, i++)
		p->reference[i & (OPEN - 1)] = p->reference[(i + 1) & (OPEN - 1)];
	p->open = top;
}

// pick_untimed takes one of which only the place is known, and not since when it was
// held: the last place where one was taken, or else any. Whatever is looked for ends
// the loop: the verifier follows each way through it.
static __always_inline void pick_untimed(struct page *p, struct reference *picked)
{
	__u32 at = p->last_untimed & (SITES - 1);

	for (__u32 i = 0; i < SITES && !p->site[at].untimed; i++)
		at = i;
	p->site[at & (SITES - 1)].untimed--;
	p->untimed--;
	picked->site = at;
	picked->time = 0;
}

// note_put settles a put with the reference that it drops. There is none when the
// process holds none: it drops what another has taken, or what was taken before.
static __always_inline bool note_put(struct page *p, __u32 tid, __u64 address, __u64 now,
				     struct reference *picked)
{
	struct site *s;

	if (p->held > 1)
		p->ambiguous++;
	if (p->untimed)
		pick_untimed(p, picked);
	else if (p->open)
		pick(p, tid, picked);
	else
		return false;
	s = &p->site[picked->site & (SITES - 1)];
	s->puts++;
	if (s->gets == s->puts)
		p->held--;
	s->puts_sum += now;
	s->last = now;
	s->dropped_at = address;
	// Another processor may have noted a get that came a moment after this put began.
	if (picked->time && now > picked->time && now - picked->time > s->held_max)
		s->held_max = now - picked->time;
	return true;
}

static __always_inline void send(__u32 kind, const struct page_key *key, __u32 tid, __u64 address,
				 __u64 now, const struct reference *picked, __u64 taken_at)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	__u64 wake = BPF_RB_FORCE_WAKEUP;

	if (!e) {
		lose(LOSS_EVENT);
		return;
	}
	e->time = now;
	e->address = address;
	e->taken = picked ? picked->time : 0;
	e->taken_at = taken_at;
	e->kind = kind;
	e->pid = key->pid;
	e->tid = tid;
	e->load = key->load;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	// Gets and puts come in bursts, and are read all at once.
	if ((kind == EVENT_GET || kind == EVENT_PUT) &&
	    bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < wake_at_bytes)
		wake = BPF_RB_NO_WAKEUP;
	bpf_ringbuf_submit(e, wake);
}

// begin keeps the stack of a process that is in a place for the first time, and has it
// named soon: the names of a module's functions go with it.
static __always_inline void begin(void *ctx, const struct page_key *key, __u32 tid, __u64 address,
				  __u64 now)
{
	struct stack_key at = {.pid = key->pid, .load = key->load, .address = address};
	struct stack *s;

	bpf_map_update_elem(&stacks, &at, blank_stack, BPF_ANY);
	s = bpf_map_lookup_elem(&stacks, &at);
	if (!s || bpf_get_stack(ctx, s->frame, sizeof(s->frame), 0) < 0)
		lose(LOSS_STACK);
	send(EVENT_SITE, key, tid, address, now, NULL, 0);
}

static __always_inline enum module_state state_of(bool direct, struct module *mod)
{
	enum module_state state = MODULE_STATE_LIVE;

	if (direct)
		return mod->state;
	bpf_core_read(&state, sizeof(state), &mod->state);
	return state;
}

static __always_inline int note(void *ctx, bool direct, struct module *mod, __u64 address, bool put)
{
	struct reference picked = {};
	struct page_key key;
	bool begun = false;
	__u64 id, now, taken_at = 0;
	struct page *p;
	__u32 tid, i;

	if (!armed || !is_wanted(direct, mod))
		return 0;
	id = bpf_get_current_pid_tgid();
	tid = id;
	// The kernel holds one while it loads a module, which nobody has taken
	// (kernel/module/main.c, module_unload_init and do_init_module).
	if (put && loader && loader == tid && state_of(direct, mod) != MODULE_STATE_COMING) {
		loader = 0;
		return 0;
	}
	now = bpf_ktime_get_ns();
	__sync_fetch_and_add(put ? &totals.puts : &totals.gets, 1);
	key.pid = id >> 32;
	key.load = loads;
	p = page_of(&key);
	if (!p) {
		lose(LOSS_PAGE);
		return 0;
	}
	if (!take(p)) {
		lose(LOSS_BUSY);
		return 0;
	}
	if (put && note_put(p, tid, address, now, &picked)) {
		taken_at = p->site[picked.site & (SITES - 1)].address;
	} else {
		i = site_of(p, address, now, &begun);
		if (i == SITES) {
			release(p);
			lose(LOSS_SITE);
			return 0;
		}
		if (put) {
			p->site[i & (SITES - 1)].strays++;
			p->site[i & (SITES - 1)].last = now;
		} else {
			note_get(p, i, tid, now);
		}
	}
	release(p);
	if (begun)
		begin(ctx, &key, tid, address, now);
	if (raw)
		send(put ? EVENT_PUT : EVENT_GET, &key, tid, address, now, &picked, taken_at);
	return 0;
}

SEC("tp_btf/module_get")
int BPF_PROG(get_tp, struct module *mod, unsigned long site)
{
	return note(ctx, true, mod, site, false);
}

SEC("tp_btf/module_put")
int BPF_PROG(put_tp, struct module *mod, unsigned long site)
{
	return note(ctx, true, mod, site, true);
}

SEC("raw_tp/module_get")
int get_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return note(ctx, false, (struct module *)ctx->args[0], ctx->args[1], false);
}

SEC("raw_tp/module_put")
int put_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return note(ctx, false, (struct module *)ctx->args[0], ctx->args[1], true);
}

// turn begins anew: a module of that name is in place and about to run its init
// function, or about to be freed.
static __always_inline int turn(bool direct, struct module *mod, __u32 kind)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct page_key key;

	if (!armed || !is_wanted(direct, mod))
		return 0;
	if (kind == EVENT_LOAD) {
		totals.gets_before = totals.gets;
		totals.puts_before = totals.puts;
		loads++;
		loader = tid;
	}
	key.pid = bpf_get_current_pid_tgid() >> 32;
	key.load = loads;
	send(kind, &key, tid, 0, bpf_ktime_get_ns(), NULL, 0);
	return 0;
}

SEC("tp_btf/module_load")
int BPF_PROG(load_tp, struct module *mod)
{
	return turn(true, mod, EVENT_LOAD);
}

SEC("tp_btf/module_free")
int BPF_PROG(free_tp, struct module *mod)
{
	return turn(true, mod, EVENT_FREE);
}

SEC("raw_tp/module_load")
int load_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return turn(false, (struct module *)ctx->args[0], EVENT_LOAD);
}

SEC("raw_tp/module_free")
int free_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return turn(false, (struct module *)ctx->args[0], EVENT_FREE);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
