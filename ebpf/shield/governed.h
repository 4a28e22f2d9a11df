/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * Who is governed: the labels and rules of ebpf/programs, read and never written.
 */
#pragma once

#include "abi.h"

/* Shared with ebpf/programs: the loader puts its maps in place of these. */
struct {
	uint_field(type, BPF_MAP_TYPE_ARRAY);
	uint_field(max_entries, 1);
	type_field(key, u32);
	type_field(value, u64);
} ACTIVE SEC(".maps");

struct {
	uint_field(type, BPF_MAP_TYPE_ARRAY);
	uint_field(max_entries, GENERATION_SLOTS);
	type_field(key, u32);
	type_field(value, struct generation);
} GENERATIONS SEC(".maps");

struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1);
	type_field(key, struct subject_key);
	type_field(value, u64);
} SUBJECTS SEC(".maps");

struct {
	uint_field(type, BPF_MAP_TYPE_HASH);
	uint_field(max_entries, 1);
	type_field(key, u32);
	type_field(value, struct label);
} LABELS SEC(".maps");

struct {
	uint_field(type, BPF_MAP_TYPE_ARRAY);
	uint_field(max_entries, 1);
	type_field(key, u32);
	type_field(value, struct agent);
} AGENT SEC(".maps");

struct {
	uint_field(type, BPF_MAP_TYPE_LPM_TRIE);
	uint_field(max_entries, 1);
	uint_field(map_flags, BPF_F_NO_PREALLOC);
	type_field(key, struct sub_user_key);
	type_field(value, struct sub_user);
} SUB_USERS SEC(".maps");

INLINE u32 agents_process(void)
{
	u32 slot = 0;
	struct agent *agent = bpf_map_lookup_elem(&AGENT, &slot);

	return agent ? agent->process : 0;
}

/* Whether a task is the agent's: the process of its id that started when it did. */
INLINE int is_agent(struct task_struct *task)
{
	u32 slot = 0;
	struct agent *agent = bpf_map_lookup_elem(&AGENT, &slot);
	struct task_struct *leader;

	if (!agent || (u32)READ(task, tgid) != agent->process)
		return 0;
	leader = READ(task, group_leader);
	return READ(leader, start_boottime) / NS_PER_TICK == agent->started;
}

/* The active generation. While the rules are being swapped, every label governs and nothing else is known. */
INLINE struct generation active(void)
{
	u32 slot = 0;
	u64 *number = bpf_map_lookup_elem(&ACTIVE, &slot);
	struct generation *found;

	if (number) {
		u32 wanted = (u32)*number;

		slot = wanted % GENERATION_SLOTS;
		found = bpf_map_lookup_elem(&GENERATIONS, &slot);
		if (found && found->number == wanted)
			return *found;
	}
	return (struct generation){ .subjects = ~0ull };
}

INLINE u64 chosen(const struct generation *generation, u32 kind, u64 id)
{
	struct subject_key key = { .generation = generation->number, .kind = kind, .id = id };
	u64 *subjects = bpf_map_lookup_elem(&SUBJECTS, &key);

	return subjects ? *subjects : 0;
}

/* Subjects that a user is one of, as itself and as somebody's sub-uid. */
INLINE u64 of_user(const struct generation *generation, u32 uid)
{
	u64 subjects = chosen(generation, SUBJECT_USER, uid);

	if (generation->looks & LOOKS_AT_SUB_USERS) {
		struct sub_user_key key = { .bits = SUB_USER_BITS,
					    .generation = generation->number,
					    .uid = __builtin_bswap32(uid) };
		struct sub_user *user = bpf_map_lookup_elem(&SUB_USERS, &key);

		if (user)
			subjects |= user->subjects;
	}
	return subjects;
}

INLINE u64 labelled(u32 process)
{
	struct label *label = bpf_map_lookup_elem(&LABELS, &process);

	return label ? label->subjects : 0;
}

/* Active subjects of the current process: by its label, and by what it has become since. */
NOINLINE u64 governed(void)
{
	struct generation generation = active();
	u32 process = bpf_get_current_pid_tgid() >> 32;
	u64 ids, subjects;

	if (!generation.subjects || is_agent(bpf_get_current_task()))
		return 0;
	ids = bpf_get_current_uid_gid();
	subjects = labelled(process) | of_user(&generation, (u32)ids) |
		   chosen(&generation, SUBJECT_GROUP, ids >> 32);
	if (generation.looks & LOOKS_AT_CGROUPS) {
		subjects |= chosen(&generation, SUBJECT_CGROUP, bpf_get_current_cgroup_id());
		for (int level = 0; level < MAX_CGROUP_DEPTH; level++) {
			u64 id = bpf_get_current_ancestor_cgroup_id(level);

			if (!id)
				break;
			subjects |= chosen(&generation, SUBJECT_CGROUP, id);
		}
	}
	return subjects & generation.subjects;
}

/* Active subjects of another process, by its label and its user and group. */
INLINE u64 governs(struct task_struct *task)
{
	struct generation generation = active();
	const struct cred *cred = READ(task, real_cred);

	return (labelled(READ(task, tgid)) | of_user(&generation, READ(cred, uid).val) |
		chosen(&generation, SUBJECT_GROUP, READ(cred, gid).val)) &
	       generation.subjects;
}

/* The user that one counts as: itself, or whose sub-uid it is. */
INLINE u32 owner_of_user(u32 uid)
{
	struct generation generation = active();
	struct sub_user_key key = { .bits = SUB_USER_BITS,
				    .generation = generation.number,
				    .uid = __builtin_bswap32(uid) };
	struct sub_user *user = 0;

	if (generation.looks & LOOKS_AT_SUB_USERS)
		user = bpf_map_lookup_elem(&SUB_USERS, &key);
	return user ? user->owner : uid;
}

/* Whether the agent accepts connections: it said so, and has shown a sign of life since. */
INLINE int agent_serves(void)
{
	u32 slot = 0;
	struct agent *agent = bpf_map_lookup_elem(&AGENT, &slot);
	u64 now = bpf_ktime_get_boot_ns(), seen;

	if (!agent || !agent->serving)
		return 0;
	seen = agent->seen;
	return seen > now || now - seen < LIFE_SIGN_LIMIT;
}

/* Whether somebody of these subjects may do as it likes with what is theirs: it can't gain by it. */
INLINE int covers(u64 mine, u64 theirs)
{
	return theirs && !(theirs & ~mine);
}
