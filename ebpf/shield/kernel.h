/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * What the shield needs of the kernel: helpers by number (include/uapi/linux/bpf.h), and of each structure the fields that
 * are read. Offsets are the running kernel's: the loader relocates every access.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

/* Map definitions (Documentation/bpf/btf.rst). */
#define uint_field(name, value) int (*name)[value]
#define type_field(name, value) typeof(value) *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_F_NO_PREALLOC = 1, BPF_F_CLONE = 1 << 9 };
enum { BPF_SK_STORAGE_GET_F_CREATE = 1 };
enum { BPF_NOEXIST = 1 };

struct bpf_sock_addr;
struct file;
struct sock;
struct socket;
struct task_struct;

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *into, u32 size) = (void *)16;
static struct task_struct *(*bpf_get_current_task)(void) = (void *)35;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value, u64 flags) = (void *)107;
static long (*bpf_probe_read_kernel)(void *into, u32 size, const void *from) = (void *)113;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_probe_read_kernel_str)(void *into, u32 size, const void *from) = (void *)115;
static u64 (*bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;
static void *(*bpf_ringbuf_reserve)(void *map, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, u64 flags) = (void *)132;
static struct socket *(*bpf_sock_from_file)(struct file *file) = (void *)162;

/* Reads one field, wherever this kernel has it; zero if it can't be read. */
#define READ(from, field)                                                                          \
	({                                                                                         \
		__typeof_unqual__((from)->field) value_;                                                      \
		bpf_probe_read_kernel(&value_, sizeof(value_),                                     \
				      __builtin_preserve_access_index(&(from)->field));            \
		value_;                                                                            \
	})

/* Kinds of __builtin_preserve_field_info. */
enum { FIELD_BYTE_OFFSET = 0, FIELD_EXISTS = 2 };

#define RELOCATED __attribute__((preserve_access_index))

struct hlist_node {
	struct hlist_node *next;
} RELOCATED;

struct hlist_head {
	struct hlist_node *first;
} RELOCATED;

struct qstr {
	u32 len;
	const char *name;
} RELOCATED;

struct super_block {
	u32 s_dev;
} RELOCATED;

struct inode {
	u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	struct hlist_head i_dentry;
} RELOCATED;

union dentry_links {
	struct hlist_node d_alias;
} RELOCATED;

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	union {
		struct hlist_node d_alias;
	} d_u;
} RELOCATED;

/* Kernels where the links are no union. */
struct dentry___flat {
	struct hlist_node d_alias;
} RELOCATED;

struct vfsmount;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} RELOCATED;

struct file {
	u32 f_mode;
	struct path f_path;
	struct inode *f_inode;
} RELOCATED;

typedef struct {
	u32 val;
} kid_t;

struct user_namespace {
	int level;
} RELOCATED;

struct cred {
	kid_t uid;
	kid_t gid;
	struct user_namespace *user_ns;
} RELOCATED;

struct mnt_namespace;

struct nsproxy {
	struct mnt_namespace *mnt_ns;
} RELOCATED;

struct fs_struct {
	struct path root;
} RELOCATED;

struct task_struct {
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	u64 start_boottime;
	const struct cred *real_cred;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
} RELOCATED;

struct sock_common {
	u16 skc_family;
} RELOCATED;

struct upid {
	int nr;
};

struct pid {
	struct upid numbers[1];
} RELOCATED;

struct sock {
	struct sock_common __sk_common;
	struct pid *sk_peer_pid;
} RELOCATED;

struct socket {
	struct sock *sk;
} RELOCATED;

struct sockaddr_un {
	u16 sun_family;
	char sun_path[108];
};

struct unix_address {
	int len;
	struct sockaddr_un name[0];
} RELOCATED;

struct unix_sock {
	struct unix_address *addr;
	struct path path;
} RELOCATED;

enum { SOCK_STREAM = 1 };
enum { AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10, AF_NETLINK = 16 };
enum { NETLINK_ROUTE = 0, NETLINK_SOCK_DIAG = 4, NETLINK_KOBJECT_UEVENT = 15 };
enum { EPERM = 1, EPROTONOSUPPORT = 93, EAFNOSUPPORT = 97 };
enum { S_IFMT = 0170000, S_IFSOCK = 0140000 };
enum { FMODE_WRITE = 2 };
