// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * The shield: LSM programs for what is no packet. For governed processes only, and by default no.
 *
 * Each bears its hook's name, and answers 0 or a negative error. What a kernel lacks a hook for is left out by the loader, which says so.
 */
#include "files.h"
#include "sockets.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* A hook's argument. */
#define ARG(number, type) ((type)(ctx[number]))

SEC("lsm/socket_create")
int socket_create(u64 *ctx)
{
	u64 mine;

	/* The kernel's own. */
	if (ARG(3, int))
		return 0;
	mine = governed();
	return mine ? check_family(mine, ARG(0, u32), ARG(1, u32), ARG(2, u32)) : 0;
}

SEC("lsm/socket_post_create")
int socket_post_create(u64 *ctx)
{
	struct socket *socket = ARG(0, struct socket *);
	struct sock *sk = socket->sk;
	u64 mine;

	if (ARG(1, u32) != AF_UNIX || ARG(4, int) || !sk)
		return 0;
	mine = governed();
	if (mine)
		own(sk, mine);
	return 0;
}

SEC("lsm/socket_connect")
int socket_connect(u64 *ctx)
{
	return check_use(ARG(0, struct socket *));
}

SEC("lsm/socket_sendmsg")
int socket_sendmsg(u64 *ctx)
{
	return check_use(ARG(0, struct socket *));
}

SEC("lsm/unix_stream_connect")
int unix_stream_connect(u64 *ctx)
{
	struct sock *listener = ARG(1, struct sock *);
	int refused = check_unix(ARG(0, struct sock *), listener);
	u64 theirs;

	if (refused)
		return refused;
	/* The listener's end of the connection belongs to whom the listener belongs to. */
	theirs = owner(listener);
	if (theirs)
		own(ARG(2, struct sock *), theirs);
	return 0;
}

SEC("lsm/unix_may_send")
int unix_may_send(u64 *ctx)
{
	struct socket *from = ARG(0, struct socket *), *to = ARG(1, struct socket *);
	struct sock *sender = from->sk, *receiver = to->sk;

	return sender && receiver ? check_unix(sender, receiver) : 0;
}

SEC("lsm/file_receive")
int file_receive(u64 *ctx)
{
	struct file *file = ARG(0, struct file *);
	u64 mine = governed();
	int refused;

	if (!mine)
		return 0;
	refused = check_received(mine, file);
	return refused ? refused : check_open(mine, file);
}

SEC("lsm/file_open")
int file_open(u64 *ctx)
{
	u64 mine = governed();

	return mine ? check_open(mine, ARG(0, struct file *)) : 0;
}

SEC("lsm/inode_unlink")
int inode_unlink(u64 *ctx)
{
	u64 mine = governed();
	struct dentry *dentry = ARG(1, struct dentry *);

	return mine && own_file(dentry) ? refuse_file(EVENT_OWN_FILE, mine, dentry) : 0;
}

SEC("lsm/inode_rename")
int inode_rename(u64 *ctx)
{
	u64 mine = governed();
	int refused;

	if (!mine)
		return 0;
	refused = check_name(mine, ARG(1, struct dentry *));
	/* One that is replaced; or, with RENAME_EXCHANGE, moved. */
	return refused ? refused : check_name(mine, ARG(3, struct dentry *));
}

SEC("lsm/inode_link")
int inode_link(u64 *ctx)
{
	u64 mine = governed();

	return mine ? check_name(mine, ARG(0, struct dentry *)) : 0;
}

SEC("lsm/ptrace_access_check")
int ptrace_access_check(u64 *ctx)
{
	struct task_struct *child = ARG(0, struct task_struct *);
	u64 mine = governed();

	if (!mine || covers(mine, governs(child)))
		return 0;
	return refuse(EVENT_TRACE, mine, READ(child, tgid), EPERM);
}

SEC("lsm/ptrace_traceme")
int ptrace_traceme(u64 *ctx)
{
	u64 theirs = governs(ARG(0, struct task_struct *));

	/* The parent is who would trace. */
	if (!theirs || covers(theirs, governed()))
		return 0;
	/* Linux 6.12 wants to see each answer: no arithmetic on the condition. */
	__asm__ volatile("" ::: "memory");
	return -EPERM;
}

SEC("lsm/task_kill")
int task_kill(u64 *ctx)
{
	u64 mine;

	if (!ARG(2, int) || !is_agent(ARG(0, struct task_struct *)))
		return 0;
	mine = governed();
	return mine ? refuse(EVENT_SIGNAL, mine, ARG(2, u32), EPERM) : 0;
}

SEC("lsm/bpf")
int bpf(u64 *ctx)
{
	u64 mine = governed();

	return mine ? refuse(EVENT_BPF, mine, ARG(0, u32), EPERM) : 0;
}

/* A ring can carry the credentials of whoever registered them. */
SEC("lsm/uring_override_creds")
int uring_override_creds(u64 *ctx)
{
	u64 mine = governed();

	return mine ? refuse(EVENT_URING, mine, 0, EPERM) : 0;
}

/* Commands of drivers, past the system calls that other hooks see. */
SEC("lsm/uring_cmd")
int uring_cmd(u64 *ctx)
{
	u64 mine = governed();

	return mine ? refuse(EVENT_URING, mine, 1, EPERM) : 0;
}
