// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * Sockets that were open before their process was governed: lists those of a network namespace, that of who opens the pinned
 * iterator, and ends the ones that user space has chosen. It needs no module of the kernel's, which sock_diag does.
 */
#include "../shield/abi.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { TCP_ESTABLISHED = 1, TCP_TIME_WAIT = 6, TCP_NEW_SYN_RECV = 12 };

/* One to be ended, by its cookie; user space writes 0, and 1 stands for one that was. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 65536);
	uint_field(map_flags, BPF_F_NO_PREALLOC);
	type_field(key, u64);
	type_field(value, u64);
} DOOMED SEC(".maps");

/* Shared with ebpf/programs: stamps of IP sockets. Only whether there is one matters here; the loader gives the size. */
struct {
	uint_field(type, BPF_MAP_TYPE_SK_STORAGE);
	uint_field(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	type_field(key, int);
	type_field(value, u64);
} STAMPS SEC(".maps");

/* What user space reads, one after the other. */
struct listed {
	u64 cookie;
	u64 inode; /* zero if no process has it as a file */
	u8 local[16];
	u8 remote[16];
	u16 local_port;
	u16 remote_port;
	u32 uid;
	u64 cgroup; /* where it was made */
	u64 stamped; /* one if it is */
};
SAME(sizeof(struct listed) == 72);

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} RELOCATED;

struct tcp_iteration {
	struct bpf_iter_meta *meta;
	struct sock_common *common;
	u32 uid __attribute__((aligned(8)));
};

struct udp_iteration {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	u32 uid __attribute__((aligned(8)));
};

struct in6_addr {
	u8 bytes[16];
};

/* As ebpf/shield knows it, and what else is read here. */
struct sock_common___ends {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_dport;
	u16 skc_num;
	u8 skc_state;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} RELOCATED;

struct socket_alloc {
	struct inode vfs_inode;
} RELOCATED;

struct kernfs_node___id {
	u64 id;
} RELOCATED;

struct cgroup___node {
	struct kernfs_node___id *kn;
} RELOCATED;

struct sock_cgroup_data {
	struct cgroup___node *cgroup;
} RELOCATED;

struct sock___made {
	struct socket *sk_socket;
	struct sock_cgroup_data sk_cgrp_data;
} RELOCATED;

static u64 (*bpf_get_socket_cookie)(void *sk) = (void *)46;
static long (*bpf_seq_write)(struct seq_file *file, const void *data, u32 length) = (void *)127;

extern int bpf_sock_destroy(struct sock_common *sk) __attribute__((section(".ksyms")));

INLINE void write_v4(u8 *into, u32 address)
{
	into[10] = into[11] = 0xff;
	__builtin_memcpy(into + 12, &address, sizeof(address));
}

INLINE void describe(struct listed *into, struct sock_common *common, u32 uid)
{
	struct sock_common___ends *ends = (void *)common;
	struct sock___made *made = (void *)common;
	struct socket *file = READ(made, sk_socket);
	struct cgroup___node *cgroup = READ(made, sk_cgrp_data.cgroup);
	struct kernfs_node___id *node = READ(cgroup, kn);

	if (READ(common, skc_family) == AF_INET) {
		write_v4(into->local, READ(ends, skc_rcv_saddr));
		write_v4(into->remote, READ(ends, skc_daddr));
	} else {
		struct in6_addr address = READ(ends, skc_v6_rcv_saddr);

		__builtin_memcpy(into->local, &address, sizeof(address));
		address = READ(ends, skc_v6_daddr);
		__builtin_memcpy(into->remote, &address, sizeof(address));
	}
	into->local_port = READ(ends, skc_num);
	into->remote_port = __builtin_bswap16(READ(ends, skc_dport));
	into->uid = uid;
	into->cgroup = READ(node, id);
	into->stamped = bpf_sk_storage_get(&STAMPS, common, 0, 0) != 0;
	if (file)
		into->inode = READ((struct socket_alloc *)file, vfs_inode.i_ino);
}

/* Ends the socket if it is to be ended, else writes what it is. */
INLINE void visit(struct bpf_iter_meta *meta, struct sock_common *common, u32 uid)
{
	struct listed listed = { .cookie = bpf_get_socket_cookie(common) };
	u64 *doomed = bpf_map_lookup_elem(&DOOMED, &listed.cookie);

	if (doomed) {
		if (!bpf_sock_destroy(common))
			*doomed = 1;
		return;
	}
	describe(&listed, common, uid);
	bpf_seq_write(meta->seq, &listed, sizeof(listed));
}

SEC("iter/tcp")
int each_tcp(struct tcp_iteration *ctx)
{
	struct sock_common *common = ctx->common;
	u8 state;

	if (!common)
		return 0;
	state = READ((struct sock_common___ends *)common, skc_state);
	/* These are no sockets any more, or not yet. */
	if (state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV)
		visit(ctx->meta, common, ctx->uid);
	return 0;
}

/* Those that are connected: what others send is looked at datagram by datagram. */
SEC("iter/udp")
int each_udp(struct udp_iteration *ctx)
{
	struct sock *sk = ctx->sk;

	if (sk && READ((struct sock_common___ends *)sk, skc_state) == TCP_ESTABLISHED)
		visit(ctx->meta, (struct sock_common *)sk, ctx->uid);
	return 0;
}
