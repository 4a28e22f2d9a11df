/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * What the shield shares with user space and with ebpf/programs. ebpf/abi says what it means; both sides assert the layout.
 */
#pragma once

#include "kernel.h"

#define SAME(condition) _Static_assert(condition, "differs from ebpf/abi")

enum { GENERATION_SLOTS = 2, MAX_CGROUP_DEPTH = 32 };
enum { LOOKS_AT_CGROUPS = 1, LOOKS_AT_SUB_USERS = 2 };
enum { SUBJECT_USER = 1, SUBJECT_GROUP = 2, SUBJECT_CGROUP = 3 };

/* A longest-prefix key: with its length in bits before its data. */
struct sub_user_key {
	u32 bits;
	u32 generation;
	u32 uid; /* highest byte first */
};
enum { SUB_USER_BITS = 64 };

struct sub_user {
	u64 subjects;
	u32 owner;
	u32 reserved;
};
SAME(sizeof(struct sub_user) == 16);

struct generation {
	u32 number;
	u32 looks;
	u64 subjects;
};
SAME(sizeof(struct generation) == 16 && __builtin_offsetof(struct generation, subjects) == 8);

struct subject_key {
	u32 generation;
	u32 kind;
	u64 id;
};
SAME(sizeof(struct subject_key) == 16 && __builtin_offsetof(struct subject_key, id) == 8);

struct label {
	u64 subjects;
	u64 started;
};
SAME(sizeof(struct label) == 16);

enum { NAME_BYTES = 64, NAME_BITS = 8 * NAME_BYTES };

struct name_key {
	u32 bits;
	char folder[NAME_BYTES];
	char name[NAME_BYTES];
};
SAME(sizeof(struct name_key) == 132 && __builtin_offsetof(struct name_key, name) == 68);

struct file_id {
	u64 device;
	u64 inode;
};
SAME(sizeof(struct file_id) == 16);

enum { KEEP = 1, HIDE = 2 };

enum { SUN_PATH_BYTES = 108 };

struct unix_name {
	u32 abstract_length;
	char path[SUN_PATH_BYTES];
};
SAME(sizeof(struct unix_name) == 112);

struct unix_allowed {
	u64 subjects;
	u64 device;
};
SAME(sizeof(struct unix_allowed) == 16);

struct unix_path {
	u32 length;
	char path[SUN_PATH_BYTES];
};
SAME(sizeof(struct unix_path) == 112);

/* Where a connect to a Unix socket leads. */
struct unix_way {
	u64 subjects;
	struct unix_path listener;
};
SAME(sizeof(struct unix_way) == 120 && __builtin_offsetof(struct unix_way, listener) == 8);

struct identity {
	u64 subjects;
	u64 cgroup;
	u64 started;
	u32 tgid;
	u32 uid;
	u32 gid;
	u32 owner;
	char command[16];
};
SAME(sizeof(struct identity) == 56 && __builtin_offsetof(struct identity, command) == 40);

struct unix_peer {
	struct identity identity;
	u64 sent;
};
SAME(sizeof(struct unix_peer) == 64);

struct owner {
	u64 subjects;
};
SAME(sizeof(struct owner) == 8);

struct agent {
	u64 started;
	u64 seen;
	u32 process;
	u32 serving;
};
SAME(sizeof(struct agent) == 24 && __builtin_offsetof(struct agent, process) == 16);

enum { NS_PER_TICK = 10000000 };
#define LIFE_SIGN_LIMIT 5000000000ull

enum counter { COUNT_REDIRECTED = 0, COUNT_PASSED = 1, COUNT_REFUSED = 2, COUNTERS_KEPT = 7 };

enum event_kind {
	EVENT_FILE = 1,
	EVENT_RENAME = 2,
	EVENT_OWN_FILE = 3,
	EVENT_UNIX = 4,
	EVENT_FAMILY = 5,
	EVENT_RECEIVED = 6,
	EVENT_TRACE = 7,
	EVENT_SIGNAL = 8,
	EVENT_BPF = 9,
	EVENT_URING = 10,
};

enum { EVENT_TEXT = 2 * NAME_BYTES };

struct shield_event {
	u64 subjects;
	u64 cgroup;
	u64 detail;
	u32 kind;
	u32 tgid;
	u32 uid;
	u32 gid;
	char command[16];
	char text[EVENT_TEXT];
};
SAME(sizeof(struct shield_event) == 184 && __builtin_offsetof(struct shield_event, text) == 56);
