/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * Sockets: families that no packet guard sees, helpers behind Unix sockets, and sockets that others hand over.
 */
#pragma once

#include "event.h"
#include "governed.h"

/* Who made a Unix socket, if it was somebody governed. */
struct {
	uint_field(type, BPF_MAP_TYPE_SK_STORAGE);
	uint_field(map_flags, BPF_F_NO_PREALLOC);
	type_field(key, int);
	type_field(value, struct owner);
} OWNERS SEC(".maps");

/* Shared with ebpf/programs: stamps of IP sockets. Only whether there is one matters here; the loader gives the size. */
struct {
	uint_field(type, BPF_MAP_TYPE_SK_STORAGE);
	uint_field(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	type_field(key, int);
	type_field(value, struct owner);
} STAMPS SEC(".maps");

/* Shared with ebpf/programs, written by ebpf/unix: whether a Unix socket's last connect was sent to the agent. */
struct {
	uint_field(type, BPF_MAP_TYPE_SK_STORAGE);
	uint_field(map_flags, BPF_F_NO_PREALLOC);
	type_field(key, int);
	type_field(value, u64);
} UNIX_SENT SEC(".maps");

/* Listeners of others, and of the agent, that may be talked to. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1024);
	type_field(key, struct unix_name);
	type_field(value, struct unix_allowed);
} UNIX_ALLOWED SEC(".maps");

/* Families whose sockets governed processes may have and use. IP is looked after by the guard; netlink without privilege
 * only asks. */
INLINE int check_family(u64 mine, u32 family, u32 type, u32 protocol)
{
	u64 detail = (u64)family << 32 | type << 16 | (protocol & 0xffff);

	switch (family) {
	case AF_UNIX:
	case AF_INET:
	case AF_INET6:
		return 0;
	case AF_NETLINK:
		if (protocol == NETLINK_ROUTE || protocol == NETLINK_SOCK_DIAG ||
		    protocol == NETLINK_KOBJECT_UEVENT)
			return 0;
		return refuse(EVENT_FAMILY, mine, detail, EPROTONOSUPPORT);
	default:
		/* What a kernel without the family says, so that programs do without it. */
		return refuse(EVENT_FAMILY, mine, detail, EAFNOSUPPORT);
	}
}

/* Whether an open socket may be used: one of a family that could not be made was made before, or by somebody else. */
INLINE int check_use(struct socket *socket)
{
	struct sock *sk = socket->sk;
	u32 family;
	u64 mine;

	if (!sk)
		return 0;
	family = READ(sk, __sk_common.skc_family);
	if (family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK)
		return 0;
	mine = governed();
	return mine ? refuse(EVENT_FAMILY, mine, (u64)family << 32, EPERM) : 0;
}

INLINE u64 owner(struct sock *sk)
{
	struct owner *owner = bpf_sk_storage_get(&OWNERS, sk, 0, 0);

	return owner ? owner->subjects : 0;
}

INLINE void own(struct sock *sk, u64 subjects)
{
	struct owner *owner = bpf_sk_storage_get(&OWNERS, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	/* Without memory for it the socket counts as somebody else's, and can't be reached. */
	if (owner)
		owner->subjects |= subjects;
}

/* The name a socket is bound to; zeros if it has none. */
INLINE void read_unix_name(struct unix_name *into, struct unix_sock *socket)
{
	struct unix_address *address = READ(socket, addr);
	u32 length;

	__builtin_memset(into, 0, sizeof(*into));
	if (!address)
		return;
	length = (u32)READ(address, len) - sizeof(u16);
	if (length > SUN_PATH_BYTES)
		length = SUN_PATH_BYTES;
	/* struct sockaddr_un is user space's, and the same on every kernel. */
	bpf_probe_read_kernel(into->path, length,
			      (char *)__builtin_preserve_access_index(&address->name) + sizeof(u16));
	if (!into->path[0])
		into->abstract_length = length;
}

/* Whether a listener's name is one that the bundle allows, on the filesystem that it was seen on: a name alone can be
 * bound anew in another mount namespace. */
INLINE int unix_allowed(u64 mine, struct unix_sock *other, const struct unix_name *name)
{
	struct unix_allowed *allowed = bpf_map_lookup_elem(&UNIX_ALLOWED, name);
	struct super_block *filesystem;
	struct dentry *dentry;
	struct inode *inode;

	if (!allowed || !(allowed->subjects & mine))
		return 0;
	if (name->abstract_length)
		return 1;
	dentry = READ(other, path.dentry);
	inode = READ(dentry, d_inode);
	filesystem = READ(inode, i_sb);
	return READ(filesystem, s_dev) == allowed->device;
}

/* Whether the agent itself listens here. The kernel notes who called listen. */
INLINE int is_agents(struct sock *listener)
{
	struct pid *pid = READ(listener, sk_peer_pid);
	u32 process = 0;

	if (!pid)
		return 0;
	bpf_probe_read_kernel(&process, sizeof(process), __builtin_preserve_access_index(&pid->numbers));
	return process && process == agents_process();
}

/* Whether a Unix socket was sent to the agent by its name: nobody comes to where resources are served by itself. */
INLINE int was_sent(struct sock *from)
{
	u64 *sent = bpf_sk_storage_get(&UNIX_SENT, from, 0, 0);

	return sent && *sent;
}

/* Whether a Unix socket of a governed process, or in its hands, may reach another. */
INLINE int check_unix(struct sock *from, struct sock *to)
{
	u64 mine = governed() | owner(from), theirs = owner(to);
	struct shield_event *told;
	struct unix_name name;

	if (!mine || covers(mine, theirs))
		return 0;
	if (was_sent(from) && is_agents(to))
		return 0;
	read_unix_name(&name, (struct unix_sock *)to);
	if (unix_allowed(mine, (struct unix_sock *)to, &name))
		return 0;
	told = event(EVENT_UNIX, mine, name.abstract_length);
	if (told) {
		__builtin_memcpy(told->text, name.path, SUN_PATH_BYTES);
		bpf_ringbuf_submit(told, 0);
	}
	return -EPERM;
}

/* Whether a descriptor that another process hands over may be taken. A socket that nobody governed made would carry what
 * the gate never sees. */
INLINE int check_received(u64 mine, struct file *file)
{
	struct socket *socket = bpf_sock_from_file(file);
	struct sock *sk;
	u32 family;

	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	family = READ(sk, __sk_common.skc_family);
	if (family == AF_UNIX && covers(mine, owner(sk)))
		return 0;
	if ((family == AF_INET || family == AF_INET6) && bpf_sk_storage_get(&STAMPS, sk, 0, 0))
		return 0;
	return refuse(EVENT_RECEIVED, mine, (u64)family << 32, EPERM);
}
