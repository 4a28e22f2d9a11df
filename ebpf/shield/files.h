/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * Files: those that the bundle shields, by name, and the agent's own, by inode.
 *
 * A shielded file is named by its own name and, if the bundle says so, that of its folder. Paths are no use: whoever may
 * make a mount namespace chooses them. What is shielded can't be renamed or linked by those it is shielded from.
 */
#pragma once

#include "event.h"
#include "governed.h"

enum { MAX_ALIASES = 4, MAX_PARENTS = 12 };

/* Names that begin so, or, with the end of the name in it, are so. */
struct {
	uint_field(type, BPF_MAP_TYPE_LPM_TRIE);
	uint_field(max_entries, 1024);
	uint_field(map_flags, BPF_F_NO_PREALLOC);
	type_field(key, struct name_key);
	type_field(value, u64);
} FILE_NAMES SEC(".maps");

/* Names that end so, written backwards. */
struct {
	uint_field(type, BPF_MAP_TYPE_LPM_TRIE);
	uint_field(max_entries, 1024);
	uint_field(map_flags, BPF_F_NO_PREALLOC);
	type_field(key, struct name_key);
	type_field(value, u64);
} FILE_ENDINGS SEC(".maps");

/* Folders that shielded names lie in. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1024);
	type_field(key, char[NAME_BYTES]);
	type_field(value, u64);
} FILE_FOLDERS SEC(".maps");

/* The agent's own files and folders: KEEP and HIDE. */
struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 64);
	type_field(key, struct file_id);
	type_field(value, u64);
} OWN_FILES SEC(".maps");

/* The first bytes of a dentry's name, and zeros behind them. */
INLINE void read_name(char *into, struct dentry *dentry)
{
	u32 length = READ(dentry, d_name.len);

	__builtin_memset(into, 0, NAME_BYTES);
	if (length > NAME_BYTES)
		length = NAME_BYTES;
	bpf_probe_read_kernel(into, length, READ(dentry, d_name.name));
}

/* The last bytes of a dentry's name, backwards, and zeros behind them. */
INLINE void read_ending(char *into, struct dentry *dentry)
{
	u32 length = READ(dentry, d_name.len);
	const char *name = READ(dentry, d_name.name);

	__builtin_memset(into, 0, NAME_BYTES);
	for (u32 i = 0; i < NAME_BYTES; i++) {
		if (i >= length)
			break;
		bpf_probe_read_kernel(into + i, 1, name + (length - 1 - i));
	}
}

INLINE u64 found(void *names, struct name_key *key)
{
	u64 *subjects = bpf_map_lookup_elem(names, key);

	return subjects ? *subjects : 0;
}

/* Subjects that a file of this name is shielded from. */
NOINLINE u64 shielded(struct dentry *dentry)
{
	struct name_key key = { .bits = 2 * NAME_BITS };
	u64 subjects;

	read_name(key.name, dentry);
	subjects = found(&FILE_NAMES, &key);
	read_name(key.folder, READ(dentry, d_parent));
	subjects |= found(&FILE_NAMES, &key);
	read_ending(key.name, dentry);
	subjects |= found(&FILE_ENDINGS, &key);
	__builtin_memset(key.folder, 0, NAME_BYTES);
	return subjects | found(&FILE_ENDINGS, &key);
}

/* The dentry that a link of an inode's list of names belongs to. */
INLINE struct dentry *dentry_of(struct hlist_node *link)
{
	struct dentry *in_union = 0;
	struct dentry___flat *flat = 0;
	u64 offset;

	if (__builtin_preserve_field_info(in_union->d_u.d_alias, FIELD_EXISTS))
		offset = __builtin_preserve_field_info(in_union->d_u.d_alias, FIELD_BYTE_OFFSET);
	else
		offset = __builtin_preserve_field_info(flat->d_alias, FIELD_BYTE_OFFSET);
	return (struct dentry *)((char *)link - offset);
}

/* The same of an open file: by the name it was opened by, and by its inode's own names, which a stacked filesystem or a
 * hard link hides. */
NOINLINE u64 file_shielded(struct file *file)
{
	struct dentry *dentry = READ(file, f_path.dentry);
	struct inode *inode = READ(file, f_inode);
	struct hlist_node *link = READ(inode, i_dentry.first);
	u64 subjects = shielded(dentry);

	for (int i = 0; i < MAX_ALIASES && link; i++) {
		struct dentry *alias = dentry_of(link);

		if (alias != dentry)
			subjects |= shielded(alias);
		link = READ(link, next);
	}
	return subjects;
}

/* What holds for the agent's own files, for those below its own folders too. */
NOINLINE u64 own_file(struct dentry *dentry)
{
	u64 holds = 0;

	for (int i = 0; i < MAX_PARENTS; i++) {
		struct inode *inode = READ(dentry, d_inode);
		struct dentry *parent = READ(dentry, d_parent);
		struct super_block *filesystem;
		struct file_id id = {};
		u64 *found;

		/* One that is about to be made has no inode. */
		if (inode) {
			filesystem = READ(inode, i_sb);
			id.device = READ(filesystem, s_dev);
			id.inode = READ(inode, i_ino);
			found = bpf_map_lookup_elem(&OWN_FILES, &id);
			if (found)
				holds |= *found;
		}
		if (parent == dentry)
			break;
		dentry = parent;
	}
	return holds;
}

INLINE int refuse_file(enum event_kind kind, u64 subjects, struct dentry *dentry)
{
	struct shield_event *told = event(kind, subjects, 0);

	if (told) {
		read_name(told->text, READ(dentry, d_parent));
		read_name(told->text + NAME_BYTES, dentry);
		bpf_ringbuf_submit(told, 0);
	}
	return -EPERM;
}

/* Whether a process of these subjects may have this file open. */
INLINE int check_open(u64 mine, struct file *file)
{
	struct dentry *dentry = READ(file, f_path.dentry);
	u64 own;

	if (file_shielded(file) & mine)
		return refuse_file(EVENT_FILE, mine, dentry);
	own = own_file(dentry);
	if (own & HIDE || (own & KEEP && READ(file, f_mode) & FMODE_WRITE))
		return refuse_file(EVENT_OWN_FILE, mine, dentry);
	return 0;
}

/* Whether it may change what this name stands for. */
INLINE int check_name(u64 mine, struct dentry *dentry)
{
	char name[NAME_BYTES];
	u64 *subjects;

	if (own_file(dentry))
		return refuse_file(EVENT_OWN_FILE, mine, dentry);
	if (shielded(dentry) & mine)
		return refuse_file(EVENT_RENAME, mine, dentry);
	read_name(name, dentry);
	subjects = bpf_map_lookup_elem(&FILE_FOLDERS, name);
	if (subjects && *subjects & mine)
		return refuse_file(EVENT_RENAME, mine, dentry);
	return 0;
}
