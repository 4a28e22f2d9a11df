// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * Unix sockets where no LSM program can be asked: by the name that a governed process connects or sends to. And on every
 * kernel that has these hooks: names that are a resource lead to the agent.
 *
 * A name tells what is there only if nobody governed can change what it leads to. So it counts where its process sees the
 * host's own files, and user space gives only names whose folders are others' to change. Everything else is refused.
 */
#include "../shield/event.h"
#include "../shield/governed.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { ALLOW = 1, REFUSE = 0 };

/* How deep in the tree of processes an agent may be. */
enum { MOST_ANCESTORS = 64 };

struct task_iteration {
	void *meta;
	struct task_struct *task;
};

/* The call that a hook looks at, as the kernel has it. */
struct bpf_sock_addr_kern {
	void *uaddr;
	u32 uaddrlen;
} RELOCATED;

#define KERNEL_FUNCTION __attribute__((section(".ksyms")))

extern void *bpf_cast_to_kern_ctx(void *context) KERNEL_FUNCTION;
extern int bpf_sock_addr_set_sun_path(struct bpf_sock_addr_kern *call, const u8 *sun_path,
				      u32 sun_path__sz) KERNEL_FUNCTION;

/* What the first process sees of the host's files, and whether the shield decides who may be talked to. */
struct host {
	u64 root;
	u64 mounts;
	u64 shielded;
};

struct {
	uint_field(type, BPF_MAP_TYPE_ARRAY);
	uint_field(max_entries, 1);
	type_field(key, u32);
	type_field(value, struct host);
} UNIX_HOST SEC(".maps");

/* The names that lead somewhere. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1024);
	type_field(key, struct unix_name);
	type_field(value, struct unix_way);
} UNIX_WAYS SEC(".maps");

/* Shared with ebpf/programs: the loader puts its maps in place of these. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1);
	type_field(key, u32);
	type_field(value, struct identity);
} UNIX_PEERS SEC(".maps");

struct {
	uint_field(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	uint_field(max_entries, COUNTERS_KEPT);
	type_field(key, u32);
	type_field(value, u64);
} COUNTERS SEC(".maps");

INLINE void count(enum counter counter)
{
	u32 slot = counter;
	u64 *counted = bpf_map_lookup_elem(&COUNTERS, &slot);

	if (counted)
		*counted += 1;
}

/* Takes note of what the host's first process sees, when the agent runs this: it is one of its ancestors. */
SEC("iter/task")
int find_host(struct task_iteration *ctx)
{
	struct task_struct *task = bpf_get_current_task();
	struct fs_struct *fs;
	struct nsproxy *namespaces;
	struct host *host;
	u32 slot = 0;

	for (int level = 0; level < MOST_ANCESTORS && READ(task, tgid) != 1; level++)
		task = READ(task, real_parent);
	host = bpf_map_lookup_elem(&UNIX_HOST, &slot);
	fs = READ(task, fs);
	namespaces = READ(task, nsproxy);
	if (host && fs && namespaces && READ(task, tgid) == 1) {
		host->root = (u64)READ(fs, root.dentry);
		host->mounts = (u64)READ(namespaces, mnt_ns);
	}
	return 0;
}

/* Whether the current process sees the host's files, where root alone mounts. Its threads alone can change that, and none
 * of them while this one is in a call, unless it may act as root. */
INLINE int sees_host(const struct host *host, u32 strict)
{
	struct task_struct *task = bpf_get_current_task();
	struct fs_struct *fs = READ(task, fs);
	struct nsproxy *namespaces = READ(task, nsproxy);
	const struct cred *cred = READ(task, real_cred);
	struct mnt_namespace *mounts;
	struct user_namespace *users;

	if (!fs || !namespaces || !host->root || (u64)READ(fs, root.dentry) != host->root)
		return 0;
	users = READ(cred, user_ns);
	if (READ(users, level) != 0)
		return 0;
	mounts = READ(namespaces, mnt_ns);
	if (strict)
		return (u64)mounts == host->mounts;
	users = READ(mounts, user_ns);
	return READ(users, level) == 0;
}

/* The name that a call bears, up to its end by length or by a NUL, as the kernel reads it. */
INLINE void read_name(struct unix_name *into, struct bpf_sock_addr_kern *call)
{
	char text[SUN_PATH_BYTES + 4] = {};
	const char *from = (const char *)READ(call, uaddr) + sizeof(u16);
	u32 length = READ(call, uaddrlen) - sizeof(u16);

	__builtin_memset(into, 0, sizeof(*into));
	if (length > SUN_PATH_BYTES)
		length = SUN_PATH_BYTES;
	bpf_probe_read_kernel_str(text, length + 1, from);
	if (!text[0]) {
		into->abstract_length = length;
		bpf_probe_read_kernel(text, length, from);
	}
	__builtin_memcpy(into->path, text, SUN_PATH_BYTES);
}

/* Notes who is on the way to the agent: the kernel tells it the process, this its subjects. */
INLINE int announce(u64 mine)
{
	struct task_struct *task = bpf_get_current_task(), *leader = READ(task, group_leader);
	u64 ids = bpf_get_current_uid_gid();
	struct identity identity = {
		.subjects = mine,
		.cgroup = bpf_get_current_cgroup_id(),
		.started = READ(leader, start_boottime),
		.tgid = bpf_get_current_pid_tgid() >> 32,
		.uid = (u32)ids,
		.gid = ids >> 32,
		.owner = owner_of_user((u32)ids),
	};

	bpf_get_current_comm(identity.command, sizeof(identity.command));
	return bpf_map_update_elem(&UNIX_PEERS, &identity.tgid, &identity, 0);
}

INLINE int refuse_name(u64 mine, const struct unix_name *name)
{
	struct shield_event *told = event(EVENT_UNIX, mine, name->abstract_length);

	count(COUNT_REFUSED);
	if (told) {
		__builtin_memcpy(told->text, name->path, SUN_PATH_BYTES);
		bpf_ringbuf_submit(told, 0);
	}
	return REFUSE;
}

/* Sends a connect to the agent. */
INLINE int redirect(struct bpf_sock_addr_kern *call, u64 mine, struct unix_way *way)
{
	u32 length = way->listener_length;

	if (!agent_serves() || length > SUN_PATH_BYTES || announce(mine))
		return REFUSE;
	if (bpf_sock_addr_set_sun_path(call, (u8 *)way->listener, length))
		return REFUSE;
	count(COUNT_REDIRECTED);
	return ALLOW;
}

INLINE int decide(void *ctx, int connects)
{
	struct bpf_sock_addr_kern *call;
	struct unix_name name;
	struct unix_way *way;
	struct host *host;
	u64 mine = governed();
	u32 slot = 0;

	if (!mine)
		return ALLOW;
	call = bpf_cast_to_kern_ctx(ctx);
	read_name(&name, call);
	host = bpf_map_lookup_elem(&UNIX_HOST, &slot);
	way = bpf_map_lookup_elem(&UNIX_WAYS, &name);
	if (host && way && (name.abstract_length || sees_host(host, way->strict))) {
		if (way->listener_length) {
			if (connects && redirect(call, mine, way))
				return ALLOW;
			return refuse_name(mine, &name);
		}
		if (way->subjects & mine) {
			count(COUNT_PASSED);
			return ALLOW;
		}
	}
	/* Its programs look at the listener itself. */
	if (host && host->shielded)
		return ALLOW;
	return refuse_name(mine, &name);
}

SEC("cgroup/connect_unix")
int connect_unix(void *ctx)
{
	return decide(ctx, 1);
}

SEC("cgroup/sendmsg_unix")
int sendmsg_unix(void *ctx)
{
	return decide(ctx, 0);
}
