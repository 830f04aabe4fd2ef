// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Who holds references on modules now, found by the owner that every table of
// operations names, and not by what a module is called or does. Everything is read
// once, without watching anything and without taking a reference.

// clang-format off
//go:build ignore

#include "kernel.h"
// clang-format on

// Whether programs may call bpf_probe_read_kernel. Without, only files are found
// whose operations belong to a module.
const volatile bool can_probe = true;

#define MODULE_NAME 56 // of struct module on 64-bit machines

// The modules that are asked about, each with its number.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, char[MODULE_NAME]);
	__type(value, __u32);
} targets SEC(".maps");

// A trail leads from what a module keeps of an open file, or from its sockets, to
// another module that is held for as long: what is at each offset is a pointer to go
// on from. The reader finds the offsets in that module's types.
#define TRAIL_STEPS 6

struct trail {
	__u32 steps;
	__u32 offset[TRAIL_STEPS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, char[MODULE_NAME]);
	__type(value, struct trail);
} trails SEC(".maps");

// Whether there are any.
bool has_trails;

// way is by what a module is held: a reference is one object held in one way,
// however many processes share that.
enum way {
	WAY_FILE,	// an open file, by its operations (fs/file_table.c, fops_get)
	WAY_DEVICE,	// an open character device (fs/char_dev.c, cdev_get)
	WAY_DISK,	// an opener of a disk (block/bdev.c)
	WAY_SOCKET,	// a socket, by its operations (net/socket.c)
	WAY_PROTOCOL,	// a socket, by its protocol (net/core/sock.c, sk_prot_alloc)
	WAY_CONGESTION, // a TCP socket, by its congestion control
	WAY_UPPER,	// a TCP socket, by its upper-layer protocol
	WAY_LINE,	// a terminal, by its line discipline (drivers/tty/tty_ldisc.c)
	WAY_TERMINAL,	// a terminal, by its driver (drivers/tty/tty_io.c)
	WAY_SUPERBLOCK, // a mounted file system, by its type (fs/super.c)
	WAY_FAMILY,	// a netlink socket, by its family (net/netlink/af_netlink.c)
	WAY_TRAIL,	// something that another module keeps of an open file or socket
	WAY_OPENERS,	// all openers of a disk or partition, by their number
	WAY_UNOWNED,	// an open file whose operations are a module's and name no owner
	WAY_EVENT,	// a perf event on a tracepoint (kernel/trace/trace_event_perf.c)
	WAY_SOUGHT,	// an open file of one of the objects that are sought: no reference
};

enum via {
	VIA_DESCRIPTOR,
	VIA_MAPPING,
	VIA_LIST, // of the kernel's: no process
};

struct holding {
	__u64 object; // what is held, of which no two are alike at a time
	__u64 file;   // the open file that leads to it
	__u64 start;  // of a mapping
	__u64 disk;   // the disk or partition that is open
	__u32 pid, tid;
	__u32 descriptor;
	__u32 target;
	__u32 way;
	__u32 via;
	__u32 device; // of a mounted file system or a disk, as the kernel packs it
	__u32 count;  // of openers
	__u32 shared; // all openers share one reference
	__u32 family; // of a socket
	__u32 type;
	__u32 protocol;
	__u8 comm[16];
	__u8 name[32]; // of the protocol, the file system's type, the line discipline
};

struct holding found;

// Where operations that name no owner are looked for: the memory of a module, when one
// is asked about that nobody holds.
#define SPANS 8

struct span {
	__u64 from, to;
};

struct span spans[SPANS];

static __always_inline bool in_spans(const void *address)
{
	bool in = false;

	for (int i = 0; i < SPANS; i++)
		in |= (__u64)address - spans[i].from < spans[i].to - spans[i].from;
	return in;
}

// The private data by which open files are sought.
const void *sought[2];

// The operations of perf events, once it is known where they are.
const void *event_operations;

// For the Go side, which takes only types that are used.
const enum way *unused_way __attribute__((unused));
const enum via *unused_via __attribute__((unused));

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file_operations {
	struct module *owner;
};

struct cdev {
	struct module *owner;
};

struct super_block;

struct inode {
	unsigned short i_mode;
	struct list_head i_sb_list;
	struct cdev *i_cdev;
	unsigned long i_ino;
};

struct address_space {
	struct inode *host;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct file_operations *f_op;
	struct inode *f_inode;
	struct address_space *f_mapping;
	struct path f_path;
	unsigned int f_mode;
	void *private_data;
};

// Since 6.13, and before (include/linux/file_ref.h).
typedef struct {
	atomic_long_t refcnt;
} file_ref_t___since;

struct file___since {
	file_ref_t___since f_ref;
};

struct file___before {
	atomic_long_t f_count;
};

struct block_device_operations {
	struct module *owner;
};

struct gendisk {
	struct block_device_operations *fops;
};

struct block_device {
	struct gendisk *bd_disk;
	unsigned int bd_dev;
	atomic_t bd_openers;
};

// Before 5.11, and before 6.0.
struct block_device___old {
	struct block_device *bd_contains;
};

struct block_device___counted {
	int bd_openers;
};

// block/bdev.c; fs/block_dev.c before 5.16
struct bdev_inode {
	struct block_device bdev;
	struct inode vfs_inode;
};

struct proto_ops {
	struct module *owner;
};

struct proto {
	struct module *owner;
	char name[32];
};

struct sock_common {
	unsigned short skc_family;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	struct proto *sk_prot_creator;
	struct socket *sk_socket;
	unsigned short sk_type;
	unsigned short sk_protocol;
};

struct socket {
	struct file *file;
	struct sock *sk;
	struct proto_ops *ops;
};

struct tcp_congestion_ops {
	struct module *owner;
	char name[16];
};

struct tcp_ulp_ops {
	struct module *owner;
	char name[16];
};

// include/net/inet_connection_sock.h; it begins with its struct sock
struct inet_connection_sock {
	struct tcp_congestion_ops *icsk_ca_ops;
	struct tcp_ulp_ops *icsk_ulp_ops;
};

// net/netlink/af_netlink.h; it begins with its struct sock
struct netlink_sock {
	struct module *module;
};

struct tty_ldisc_ops {
	char *name;
	struct module *owner;
};

struct tty_ldisc {
	struct tty_ldisc_ops *ops;
};

struct tty_driver {
	struct module *owner;
	char *driver_name;
};

struct tty_struct {
	struct tty_driver *driver;
	struct tty_ldisc *ldisc;
};

// include/linux/tty.h
struct tty_file_private {
	struct tty_struct *tty;
	struct file *file;
};

struct file_system_type {
	char *name;
	struct module *owner;
};

struct super_block {
	struct list_head s_list;
	struct list_head s_inodes;
	unsigned int s_dev;
	struct file_system_type *s_type;
	struct block_device *s_bdev;
};

struct vm_area_struct {
	unsigned long vm_start;
	struct file *vm_file;
};

// include/linux/trace_events.h. What is no module's, and can come and go, has a count in
// the same place.
struct trace_event_call {
	struct module *module;
};

struct trace_event_call___before { // before 5.15
	struct module *mod;
};

struct perf_event {
	struct trace_event_call *tp_event;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

// fs/mount.h
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct dentry_operations {
	void *d_dname;
};

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct dentry *d_parent;
	struct hlist_bl_node d_hash;
	struct qstr d_name;
	struct inode *d_inode;
	struct dentry_operations *d_op;
	struct super_block *d_sb;
};

struct fs_struct {
	struct path root;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct___rooted {
	struct fs_struct *fs;
	struct files_struct *files;
	struct task_struct___rooted *group_leader;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
};

#pragma clang attribute pop

// include/uapi/linux/stat.h
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFBLK 0060000
#define S_IFCHR 0020000

#define FMODE_PATH 0x4000 // include/linux/fs.h

#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define SOCK_STREAM 1
#define IPPROTO_TCP 6

// READ reads a field behind any pointer, 0 when that leads nowhere.
#define READ(from, field)                                                                          \
	({                                                                                         \
		typeof((from)->field) __value = 0;                                                 \
		bpf_core_read(&__value, sizeof(__value), &(from)->field);                          \
		__value;                                                                           \
	})

// target gives the number of a module that is asked about, or nothing.
static __always_inline __u32 *target(struct module *owner)
{
	char name[MODULE_NAME] = {};

	if (!owner)
		return NULL;
	bpf_core_read_str(name, sizeof(name), &owner->name);
	return bpf_map_lookup_elem(&targets, name);
}

// owned is target for a pointer that the verifier knows, which may be followed in
// all modes of lockdown.
static __always_inline __u32 *owned(struct module *owner)
{
	char name[MODULE_NAME] = {};

	if (!owner)
		return NULL;
	for (int i = 0; i < MODULE_NAME; i++) {
		name[i] = owner->name[i];
		if (!name[i])
			break;
	}
	return bpf_map_lookup_elem(&targets, name);
}

// How many were sent for the task at hand: there is room for 256 (kernel/bpf/
// bpf_iter.c, bpf_seq_read).
__u32 sent;

static const __u32 first_target;

// tell sends that a module is held.
static __always_inline void tell(struct seq_file *seq, enum way way, void *object,
				 const __u32 *module)
{
	found.way = way;
	found.object = (__u64)object;
	found.target = *module;
	bpf_seq_write(seq, &found, sizeof(found));
	sent++;
}

// next clears what is only said of one file or file system.
static __always_inline void next(void)
{
	found.disk = 0;
	found.family = 0;
	__builtin_memset(found.name, 0, sizeof(found.name));
}

static __always_inline void note_task(struct task_struct *task)
{
	__builtin_memset(&found, 0, sizeof(found));
	found.pid = task->tgid;
	found.tid = task->pid;
	__builtin_memcpy(found.comm, task->comm, sizeof(found.comm));
}

// follow follows the trail that begins at what a module keeps, if there is one.
static __noinline int follow(struct seq_file *seq, struct module *owner, void *object, void *at)
{
	char name[MODULE_NAME] = {};
	struct trail *trail;
	__u32 *module;

	if (!owner || !at)
		return 0;
	bpf_core_read_str(name, sizeof(name), &owner->name);
	trail = bpf_map_lookup_elem(&trails, name);
	if (!trail)
		return 0;
	for (__u32 i = 0; i < TRAIL_STEPS && i < trail->steps; i++) {
		void *to = NULL;

		bpf_probe_read_kernel(&to, sizeof(to), at + trail->offset[i]);
		at = to;
	}
	module = target(at);
	if (!module)
		return 0;
	__builtin_memcpy(found.name, name, sizeof(found.name) - 1);
	tell(seq, WAY_TRAIL, object, module);
	return 0;
}

static __always_inline void protocol(struct seq_file *seq, struct sock *sk)
{
	struct proto *prot = READ(sk, sk_prot_creator);
	__u32 *module = target(READ(prot, owner));

	if (!module)
		return;
	bpf_core_read_str(found.name, sizeof(found.name), &prot->name);
	tell(seq, WAY_PROTOCOL, sk, module);
}

static __always_inline void connection(struct seq_file *seq, struct sock *sk)
{
	struct inet_connection_sock *icsk = (void *)sk;
	struct tcp_congestion_ops *ca = READ(icsk, icsk_ca_ops);
	struct tcp_ulp_ops *ulp = READ(icsk, icsk_ulp_ops);
	__u32 *module;

	module = target(READ(ca, owner));
	if (module) {
		bpf_core_read_str(found.name, sizeof(ca->name), &ca->name);
		tell(seq, WAY_CONGESTION, sk, module);
	}
	module = target(READ(ulp, owner));
	if (module) {
		bpf_core_read_str(found.name, sizeof(ulp->name), &ulp->name);
		tell(seq, WAY_UPPER, sk, module);
	}
}

static __always_inline void netlink(struct seq_file *seq, struct netlink_sock *sk)
{
	__u32 *module = target(READ(sk, module));

	if (module)
		tell(seq, WAY_FAMILY, sk, module);
}

static __always_inline void note_sock(struct sock *sk)
{
	found.family = READ(sk, __sk_common.skc_family);
	found.type = READ(sk, sk_type);
	found.protocol = READ(sk, sk_protocol);
}

static __always_inline void socket(struct seq_file *seq, struct socket *sock)
{
	struct sock *sk = READ(sock, sk);
	struct proto_ops *ops = READ(sock, ops);
	__u32 *module;

	note_sock(sk);
	module = target(READ(ops, owner));
	if (module)
		tell(seq, WAY_SOCKET, sock, module);
	if (!sk)
		return;
	if (has_trails)
		follow(seq, READ(ops, owner), sock, sk);
	protocol(seq, sk);
	if ((found.family == AF_INET || found.family == AF_INET6) && found.type == SOCK_STREAM &&
	    found.protocol == IPPROTO_TCP)
		connection(seq, sk);
	if (found.family == AF_NETLINK)
		netlink(seq, (void *)sk);
}

// inner_sock looks for a struct sock that begins what a driver keeps of an open
// file, as those of tun and macvtap do: it leads back to the file.
static __always_inline void inner_sock(struct seq_file *seq, struct file *file, void *private)
{
	struct sock *sk = private;
	struct socket *sock = READ(sk, sk_socket);

	if (READ(sock, file) != file || READ(sock, sk) != sk)
		return;
	note_sock(sk);
	protocol(seq, sk);
}

// terminal looks for the terminal of an open file, which leads back to the file.
static __always_inline void terminal(struct seq_file *seq, struct file *file,
				     struct tty_file_private *private)
{
	struct tty_struct *tty;
	struct tty_driver *driver;
	struct tty_ldisc_ops *ops;
	struct tty_ldisc *ldisc;
	char *name;
	__u32 *module;

	if (READ(private, file) != file)
		return;
	tty = READ(private, tty);
	driver = READ(tty, driver);
	module = target(READ(driver, owner));
	if (module) {
		name = READ(driver, driver_name);
		bpf_probe_read_kernel_str(found.name, sizeof(found.name), name);
		tell(seq, WAY_TERMINAL, tty, module);
	}
	ldisc = READ(tty, ldisc);
	ops = READ(ldisc, ops);
	module = target(READ(ops, owner));
	if (module) {
		name = READ(ops, name);
		bpf_probe_read_kernel_str(found.name, sizeof(found.name), name);
		tell(seq, WAY_LINE, tty, module);
	}
}

// driver gives the number of the module that drives a disk.
static __always_inline __u32 *driver(struct block_device *bdev)
{
	struct gendisk *disk = READ(bdev, bd_disk);
	struct block_device_operations *fops = (void *)READ(disk, fops);

	return target(READ(fops, owner));
}

// shares says that all who have a disk open share one reference: up to 5.10
// (fs/block_dev.c, __blkdev_get).
static __always_inline bool shares(void)
{
	return bpf_core_field_exists(struct block_device___old, bd_contains);
}

// opener tells of somebody who has a disk open.
static __always_inline void opener(struct seq_file *seq, struct block_device *bdev, void *by)
{
	__u32 *module = driver(bdev);

	if (!module)
		return;
	found.disk = (__u64)bdev;
	tell(seq, WAY_DISK, shares() ? bdev : by, module);
}

static __always_inline void disk(struct seq_file *seq, struct file *file)
{
	struct address_space *mapping = READ(file, f_mapping);
	struct inode *inode = READ(mapping, host);
	struct bdev_inode *bdev =
		(void *)inode - bpf_core_field_offset(struct bdev_inode, vfs_inode);

	opener(seq, &bdev->bdev, file);
}

// device looks at what stands behind a special file.
static __always_inline void device(struct seq_file *seq, struct file *file, struct inode *inode,
				   void *private)
{
	struct cdev *cdev = READ(inode, i_cdev);
	__u32 *module = target(READ(cdev, owner));

	if (module)
		tell(seq, WAY_DEVICE, file, module);
	terminal(seq, file, private);
}

static __always_inline void event(struct seq_file *seq, struct perf_event *event)
{
	struct trace_event_call *call = READ(event, tp_event);
	struct trace_event_call___before *before = (void *)call;
	__u32 *module;

	if (bpf_core_field_exists(before->mod))
		module = target(READ(before, mod));
	else
		module = target(READ(call, module));
	if (module)
		tell(seq, WAY_EVENT, event, module);
}

// look looks at an open file, which may be closed meanwhile.
static __always_inline void look(struct seq_file *seq, struct file *file)
{
	struct file_operations *ops = (void *)READ(file, f_op);
	struct inode *inode = READ(file, f_inode);
	void *private = READ(file, private_data);
	__u32 *module;

	if (!ops || READ(file, f_mode) & FMODE_PATH) // which opens nothing
		return;
	next();
	found.file = (__u64)file;
	module = target(READ(ops, owner));
	if (module)
		tell(seq, WAY_FILE, file, module);
	else if (spans[0].to && in_spans(ops) && !READ(ops, owner))
		tell(seq, WAY_UNOWNED, file, &first_target);
	if (private && (private == sought[0] || private == sought[1]))
		tell(seq, WAY_SOUGHT, file, &first_target);
	if (event_operations && ops == event_operations)
		event(seq, private);
	if (has_trails)
		follow(seq, READ(ops, owner), file, private);
	switch (READ(inode, i_mode) & S_IFMT) {
	case S_IFSOCK:
		socket(seq, private);
		break;
	case S_IFBLK:
		disk(seq, file);
		break;
	case S_IFCHR:
		device(seq, file, inode, private);
		if (module)
			inner_sock(seq, file, private);
		break;
	}
}

// look_only looks at no more than can be seen in all modes of lockdown.
static __always_inline void look_only(struct seq_file *seq, struct file *file)
{
	__u32 *module;

	if (file->f_mode & FMODE_PATH || !file->f_op)
		return;
	found.file = (__u64)file;
	module = owned(file->f_op->owner);
	if (module)
		tell(seq, WAY_FILE, file, module);
}

// files goes over all open files where there is nothing better: the kernel holds
// each while it is looked at, so that one that is closed in this very moment stays
// open until the reader has it all.
SEC("iter/task_file")
int files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file)
		return 0;
	note_task(task);
	found.descriptor = ctx->fd;
	found.via = VIA_DESCRIPTOR;
	if (can_probe)
		look(ctx->meta->seq, file);
	else
		look_only(ctx->meta->seq, file);
	return 0;
}

// How many descriptors of a task are looked at in one go, in which nothing else runs
// on the processor. The reader goes over the tasks again for those above.
#define DESCRIPTORS 4096

// The first descriptor of this go, and of the next: the lowest that was not looked
// at, or NO_DESCRIPTOR.
#define NO_DESCRIPTOR 0xffffffff
__u32 from_descriptor, next_descriptor;

// What is left of the room when no more descriptors of a task are looked at: for as
// much as one can lead to.
#define ENOUGH (256 - 16)

struct table {
	struct seq_file *seq;
	struct file **file;
	__u32 from;
};

static long look_at(__u32 i, struct table *table)
{
	struct file *file = NULL;

	if (sent >= ENOUGH) {
		if (table->from + i < next_descriptor)
			next_descriptor = table->from + i;
		return 1;
	}
	bpf_probe_read_kernel(&file, sizeof(file), &table->file[table->from + i]);
	if (!file)
		return 0;
	found.descriptor = table->from + i;
	look(table->seq, file);
	return 0;
}

// descriptors goes over all open files without holding any: it reads the tables of
// descriptors as they are (include/linux/fdtable.h).
SEC("iter/task")
int descriptors(struct bpf_iter__task *ctx)
{
	struct table table = {.seq = ctx->meta->seq, .from = from_descriptor};
	struct task_struct___rooted *task = (void *)ctx->task, *leader;
	struct files_struct *files;
	struct fdtable *fdt;
	__u32 size;

	if (!task)
		return 0;
	leader = READ(task, group_leader);
	files = READ(task, files);
	if (!files || (leader != task && READ(leader, files) == files))
		return 0;
	fdt = READ(files, fdt);
	table.file = READ(fdt, fd);
	size = READ(fdt, max_fds);
	if (!table.file || size <= table.from)
		return 0;
	size -= table.from;
	if (size > DESCRIPTORS) {
		size = DESCRIPTORS;
		if (table.from + size < next_descriptor)
			next_descriptor = table.from + size;
	}
	note_task((struct task_struct *)task);
	found.via = VIA_DESCRIPTOR;
	sent = 0;
	bpf_loop(size, look_at, &table, 0);
	return 0;
}

SEC("iter/task_vma")
int mappings(struct bpf_iter__task_vma *ctx)
{
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	struct file *file;

	if (!task || !vma)
		return 0;
	file = vma->vm_file;
	if (!file)
		return 0;
	note_task(task);
	found.start = vma->vm_start;
	found.via = VIA_MAPPING;
	if (can_probe)
		look(ctx->meta->seq, file);
	else
		look_only(ctx->meta->seq, file);
	return 0;
}

// How many superblocks are looked at for each task that is gone over: each makes
// the program longer to check. The reader goes over the tasks again until it is
// through.
#define SUPERBLOCKS 8

// Of the file system that all disks are files of (block/bdev.c, blockdev_mnt): where
// on the list of its files to go on, and where that ends.
struct list_head *next_disk, *last_disk;

// Where on the list of superblocks the look began and is to go on, 0 at its end. The
// reader sets the first to 0 to begin.
struct list_head *first_superblock, *next_superblock;

static __always_inline void superblock(struct seq_file *seq, struct super_block *sb)
{
	struct file_system_type *type = READ(sb, s_type);
	__u32 *module = target(READ(type, owner));

	next();
	found.device = READ(sb, s_dev);
	bpf_probe_read_kernel_str(found.name, sizeof(found.name), READ(type, name));
	if (*(__u32 *)found.name == *(__u32 *)"bdev" && !found.name[4] && !last_disk) {
		last_disk = (void *)sb + bpf_core_field_offset(struct super_block, s_inodes);
		next_disk = READ(last_disk, next);
	}
	if (module)
		tell(seq, WAY_SUPERBLOCK, sb, module);
	opener(seq, READ(sb, s_bdev), sb);
}

// superblocks follows the list of all superblocks (fs/super.c) from that on which
// the first task has its root until it comes back there. The list's head has no
// name that is looked for.
SEC("iter/task")
int superblocks(struct bpf_iter__task *ctx)
{
	struct task_struct___rooted *task = (void *)ctx->task;
	struct super_block *sb;

	if (!task || !can_probe)
		return 0;
	if (!first_superblock) {
		struct fs_struct *fs = READ(task, fs);
		struct vfsmount *mnt = READ(fs, root.mnt);

		sb = READ(mnt, mnt_sb);
		first_superblock = (void *)sb + bpf_core_field_offset(struct super_block, s_list);
		next_superblock = sb ? first_superblock : NULL;
	}
	__builtin_memset(&found, 0, sizeof(found));
	found.via = VIA_LIST;
	for (int i = 0; i < SUPERBLOCKS && next_superblock; i++) {
		sb = (void *)next_superblock - bpf_core_field_offset(struct super_block, s_list);
		superblock(ctx->meta->seq, sb);
		next_superblock = READ(next_superblock, next);
		if (next_superblock == first_superblock)
			next_superblock = NULL;
	}
	return 0;
}

static __always_inline __u32 openers(struct block_device *bdev)
{
	if (bpf_core_field_exists(struct block_device, bd_openers.counter))
		return READ(bdev, bd_openers.counter);
	return READ((struct block_device___counted *)bdev, bd_openers);
}

static __always_inline void disk_of(struct seq_file *seq, struct inode *inode)
{
	struct bdev_inode *file =
		(void *)inode - bpf_core_field_offset(struct bdev_inode, vfs_inode);
	struct block_device *bdev = &file->bdev;
	__u32 *module = driver(bdev);

	found.count = openers(bdev);
	if (!module || !found.count)
		return;
	found.device = READ(bdev, bd_dev);
	found.disk = (__u64)bdev;
	found.shared = shares();
	tell(seq, WAY_OPENERS, bdev, module);
}

// disks goes over all disks and partitions, as superblocks does; that one must have
// found where they are listed.
SEC("iter/task")
int disks(struct bpf_iter__task *ctx)
{
	if (!ctx->task || !can_probe)
		return 0;
	__builtin_memset(&found, 0, sizeof(found));
	found.via = VIA_LIST;
	for (int i = 0; i < SUPERBLOCKS && next_disk; i++) {
		if (next_disk == last_disk) {
			next_disk = NULL;
			break;
		}
		disk_of(ctx->meta->seq,
			(void *)next_disk - bpf_core_field_offset(struct inode, i_sb_list));
		next_disk = READ(next_disk, next);
	}
	return 0;
}

#define PATH_SIZE 256
#define NAME_SIZE 256  // include/uapi/linux/limits.h, NAME_MAX, and a slash
#define MOST_NAMES 100 // of which a path is made, mounts included

// named is where an open file is.
struct named {
	__u64 inode;			  // its number
	__u32 begins;			  // where in the path
	__u32 whole;			  // the path goes up to the root
	__u32 made_up;			  // the file system makes up what is read in /proc
	__u32 deleted;			  // it is in no directory any more
	__u32 closed;			  // nobody has it open any more
	__u8 type[16];			  // of the file system
	__u8 path[PATH_SIZE + NAME_SIZE]; // up to PATH_SIZE
};

struct named named;

const struct named *unused_named __attribute__((unused));

// closed says whether a file was closed by all who had it open. Since 6.13 the first
// reference counts as 0, and a negative number means that there is none.
static __always_inline bool closed(struct file *file)
{
	struct file___since *since = (void *)file;

	if (bpf_core_field_exists(since->f_ref))
		return READ(since, f_ref.refcnt.counter) < 0;
	return !READ((struct file___before *)file, f_count.counter);
}

// up writes the name of an entry before what there is of the path, if there is room.
static __always_inline bool up(struct dentry *dentry)
{
	__u32 size = READ(dentry, d_name.len) & (NAME_SIZE - 1);
	__u32 at = named.begins - size - 1;

	if (at >= PATH_SIZE)
		return false;
	barrier_var(at); // or the compiler checks a copy, of which the verifier knows nothing
	at &= PATH_SIZE - 1;
	named.begins = at;
	named.path[at] = '/';
	bpf_probe_read_kernel(&named.path[at + 1], size, READ(dentry, d_name.name));
	return true;
}

// name finds out where an open file is, from the entry of its directory up to the root
// of its mount namespace (fs/d_path.c). The kernel tells that in /proc as well, but holds
// the file meanwhile: one that is closed in that moment stays open a little longer, and
// its module with it. It is run when the reader asks (Documentation/bpf/bpf_prog_run.rst),
// with the file's address.
SEC("raw_tp")
int name(struct bpf_raw_tracepoint_args *ctx)
{
	struct file *file = (void *)ctx->args[0];
	struct dentry *dentry = READ(file, f_path.dentry);
	struct vfsmount *mnt = READ(file, f_path.mnt);
	struct super_block *sb = READ(dentry, d_sb);
	struct file_system_type *type = READ(sb, s_type);
	struct inode *inode = READ(dentry, d_inode);
	struct dentry_operations *ops = READ(dentry, d_op);

	named.begins = PATH_SIZE;
	named.whole = 0;
	named.closed = closed(file);
	named.inode = READ(inode, i_ino);
	named.made_up = READ(ops, d_dname) != NULL;
	named.deleted = !READ(dentry, d_hash.pprev) && READ(dentry, d_parent) != dentry;
	bpf_probe_read_kernel_str(named.type, sizeof(named.type), READ(type, name));
	if (named.made_up)
		up(dentry);
	for (int i = 0; i < MOST_NAMES && !named.made_up; i++) {
		struct dentry *parent = READ(dentry, d_parent);

		if (dentry == READ(mnt, mnt_root)) {
			struct mount *mount =
				(void *)mnt - bpf_core_field_offset(struct mount, mnt);
			struct mount *above = READ(mount, mnt_parent);

			if (!above || above == mount) {
				named.whole = 1;
				break;
			}
			dentry = READ(mount, mnt_mountpoint);
			mnt = (void *)above + bpf_core_field_offset(struct mount, mnt);
			continue;
		}
		if (!parent || parent == dentry || !up(dentry))
			break;
		dentry = parent;
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
