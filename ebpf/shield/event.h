/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * What was refused, told to user space. A full buffer loses events and refuses all the same.
 */
#pragma once

#include "abi.h"

struct {
	uint_field(type, BPF_MAP_TYPE_RINGBUF);
	uint_field(max_entries, 256 * 1024);
} EVENTS SEC(".maps");

/* An event about the current process, to be filled in and submitted. */
INLINE struct shield_event *event(enum event_kind kind, u64 subjects, u64 detail)
{
	struct shield_event *event = bpf_ringbuf_reserve(&EVENTS, sizeof(*event), 0);
	u64 ids = bpf_get_current_uid_gid();

	if (!event)
		return 0;
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->subjects = subjects;
	event->cgroup = bpf_get_current_cgroup_id();
	event->detail = detail;
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->uid = (u32)ids;
	event->gid = ids >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	return event;
}

/* Tells of a refusal that no text belongs to; the answer is the error. */
INLINE int refuse(enum event_kind kind, u64 subjects, u64 detail, int error)
{
	struct shield_event *told = event(kind, subjects, detail);

	if (told)
		bpf_ringbuf_submit(told, 0);
	return -error;
}
