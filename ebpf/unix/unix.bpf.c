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

/* What a hook is given (include/uapi/linux/bpf.h). */
struct bpf_sock_addr {
	u32 user_family;
	u32 user_ip4;
	u32 user_ip6[4];
	u32 user_port;
	u32 family;
	u32 type;
	u32 protocol;
	u32 msg_src_ip4;
	u32 msg_src_ip6[4];
	struct sock *sk __attribute__((aligned(8)));
};
SAME(__builtin_offsetof(struct bpf_sock_addr, sk) == 64);

/* The call that it is about, as the kernel has it. */
struct bpf_sock_addr_kern {
	void *uaddr;
	u32 uaddrlen;
} RELOCATED;

#define KERNEL_FUNCTION __attribute__((section(".ksyms")))

extern void *bpf_cast_to_kern_ctx(void *context) KERNEL_FUNCTION;
extern int bpf_sock_addr_set_sun_path(struct bpf_sock_addr_kern *call, const u8 *sun_path,
				      u32 sun_path__sz) KERNEL_FUNCTION;

/* What the first process sees of the host's files, whether the shield decides who may be talked to, and whether the agent sees
 * what the first process does. */
struct host {
	u64 root;
	u64 root_mount;
	u64 mounts;
	u64 shielded;
	u64 agents;
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

/* The agent's own sockets that names lead to, with those names. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1024);
	type_field(key, struct unix_name);
	type_field(value, struct unix_path);
} UNIX_GATES SEC(".maps");

/* Shared with ebpf/programs: the loader puts its maps in place of these. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1);
	type_field(key, u32);
	type_field(value, struct unix_peer);
} UNIX_PEERS SEC(".maps");

struct {
	uint_field(type, BPF_MAP_TYPE_SK_STORAGE);
	uint_field(map_flags, BPF_F_NO_PREALLOC);
	type_field(key, int);
	type_field(value, u64);
} UNIX_SENT SEC(".maps");

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

/* Whether a task's root directory and mounts are the first process's. */
INLINE int has_mounts_of(const struct host *host, struct task_struct *task)
{
	struct fs_struct *fs = READ(task, fs);
	struct nsproxy *namespaces = READ(task, nsproxy);

	if (!fs || !namespaces || !host->root || (u64)READ(fs, root.dentry) != host->root)
		return 0;
	return (u64)READ(fs, root.mnt) == host->root_mount && (u64)READ(namespaces, mnt_ns) == host->mounts;
}

/* Takes note of what the host's first process sees, when the agent runs this: it is one of its ancestors. */
SEC("iter/task")
int find_host(struct task_iteration *ctx)
{
	struct task_struct *task = bpf_get_current_task(), *agent = task;
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
		host->root_mount = (u64)READ(fs, root.mnt);
		host->mounts = (u64)READ(namespaces, mnt_ns);
		host->agents = has_mounts_of(host, agent);
	}
	return 0;
}

/* Whether the current process sees the host's files as the first process does. Mounts of one's own count for nothing,
 * whoever made them: set-uid programs make them for anybody. Its threads alone can change what it sees, and none of them
 * while this one is in a call, unless it may act as root. */
INLINE int sees_host(const struct host *host)
{
	struct task_struct *task = bpf_get_current_task();
	const struct cred *cred = READ(task, real_cred);
	struct user_namespace *users;

	if (!has_mounts_of(host, task))
		return 0;
	users = READ(cred, user_ns);
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

/* Notes who is on the way to the agent: the kernel tells it the process, this its subjects. Of one process several connects
 * can be on the way. */
INLINE int announce(u64 mine)
{
	struct task_struct *task = bpf_get_current_task(), *leader = READ(task, group_leader);
	u64 ids = bpf_get_current_uid_gid();
	struct unix_peer peer = {
		.identity = {
			.subjects = mine,
			.cgroup = bpf_get_current_cgroup_id(),
			.started = READ(leader, start_boottime),
			.tgid = bpf_get_current_pid_tgid() >> 32,
			.uid = (u32)ids,
			.gid = ids >> 32,
			.owner = owner_of_user((u32)ids),
		},
		.sent = 1,
	};
	struct unix_peer *known = bpf_map_lookup_elem(&UNIX_PEERS, &peer.identity.tgid);

	bpf_get_current_comm(peer.identity.command, sizeof(peer.identity.command));
	if (!known && !bpf_map_update_elem(&UNIX_PEERS, &peer.identity.tgid, &peer, BPF_NOEXIST))
		return 0;
	/* Another thread may have been quicker. */
	known = bpf_map_lookup_elem(&UNIX_PEERS, &peer.identity.tgid);
	if (!known)
		return -1;
	if (known->identity.started != peer.identity.started)
		return bpf_map_update_elem(&UNIX_PEERS, &peer.identity.tgid, &peer, 0);
	known->identity = peer.identity;
	__sync_fetch_and_add(&known->sent, 1);
	return 0;
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
INLINE int redirect(struct bpf_sock_addr *ctx, struct bpf_sock_addr_kern *call, u64 mine, struct unix_way *way)
{
	u32 length = way->listener.length;
	u64 *sent;

	if (ctx->type != SOCK_STREAM || !agent_serves() || length > SUN_PATH_BYTES)
		return REFUSE;
	sent = bpf_sk_storage_get(&UNIX_SENT, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!sent || announce(mine))
		return REFUSE;
	if (bpf_sock_addr_set_sun_path(call, (u8 *)way->listener.path, length))
		return REFUSE;
	*sent = 1;
	count(COUNT_REDIRECTED);
	return ALLOW;
}

INLINE int decide(struct bpf_sock_addr *ctx, int connects)
{
	struct bpf_sock_addr_kern *call;
	struct unix_name name;
	struct unix_way *way;
	struct host *host;
	u64 mine = governed(), *sent;
	u32 slot = 0;

	if (!mine)
		return ALLOW;
	sent = connects ? bpf_sk_storage_get(&UNIX_SENT, ctx->sk, 0, 0) : 0;
	if (sent)
		*sent = 0;
	call = bpf_cast_to_kern_ctx(ctx);
	read_name(&name, call);
	host = bpf_map_lookup_elem(&UNIX_HOST, &slot);
	way = bpf_map_lookup_elem(&UNIX_WAYS, &name);
	if (host && way && (name.abstract_length || sees_host(host))) {
		if (way->listener.length) {
			if (connects && redirect(ctx, call, mine, way))
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
int connect_unix(struct bpf_sock_addr *ctx)
{
	return decide(ctx, 1);
}

SEC("cgroup/sendmsg_unix")
int sendmsg_unix(struct bpf_sock_addr *ctx)
{
	return decide(ctx, 0);
}

/* Who was sent to the agent is told the name that it asked for. */
SEC("cgroup/getpeername_unix")
int getpeername_unix(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_addr_kern *call;
	struct unix_path *asked;
	struct unix_name name;
	u32 length;

	if (!governed())
		return ALLOW;
	call = bpf_cast_to_kern_ctx(ctx);
	read_name(&name, call);
	asked = bpf_map_lookup_elem(&UNIX_GATES, &name);
	if (asked) {
		length = asked->length;
		if (length <= SUN_PATH_BYTES)
			bpf_sock_addr_set_sun_path(call, (u8 *)asked->path, length);
	}
	return ALLOW;
}
