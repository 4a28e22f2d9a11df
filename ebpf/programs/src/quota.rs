//! How many redirected connections wait for the agent: of each user no more than a share, so that nobody shuts the others
//! out.

use core::arch::asm;

use tidegate_abi::{ALL_USERS, MAX_HANDOFFS, MAX_HANDOFFS_PER_USER, OTHER_USERS, Waiting};

use crate::maps::{TAKEN, WAITING};

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

/// Where one more connection of the user's would count: with the user's own, or with those of all for whose users there is
/// no entry left. None if no more of these may wait, or it can't be counted.
#[inline(always)]
pub fn room(user: u32) -> Option<u32> {
    let counted = if has_entry(user) { user } else { OTHER_USERS };
    let room = is_below(counted, MAX_HANDOFFS_PER_USER) && is_below(ALL_USERS, MAX_HANDOFFS as u64);
    room.then_some(counted)
}

/// One more waits, that counts here.
#[inline(always)]
pub fn offered(counted: u32) {
    for user in [counted, ALL_USERS] {
        if let Some(waiting) = WAITING.get_ptr_mut(user) {
            // SAFETY: a value of the map; the agent deletes none that changed within seconds.
            add(unsafe { &raw mut (*waiting).offered });
        }
    }
}

/// One that counted here has gone without being taken.
#[inline(always)]
pub fn ended(counted: u32) {
    for user in [counted, ALL_USERS] {
        if let Some(waiting) = WAITING.get_ptr_mut(user) {
            // SAFETY: as above.
            add(unsafe { &raw mut (*waiting).ended });
        }
    }
}

/// Whether the user has an entry, by now.
#[inline(always)]
fn has_entry(user: u32) -> bool {
    // SAFETY: only whether it is there is looked at.
    let is_there = || unsafe { WAITING.get(user) }.is_some();
    // Another CPU may do the same, and be first.
    is_there() || WAITING.insert(user, Waiting::default(), NOEXIST).is_ok() || is_there()
}

#[inline(always)]
fn is_below(user: u32, most: u64) -> bool {
    // SAFETY: copied at once.
    let Some(Waiting { offered, ended, .. }) = unsafe { WAITING.get(user) }.copied() else { return false };
    // SAFETY: copied at once.
    let taken = unsafe { TAKEN.get(user) }.copied().unwrap_or(0);
    // The agent counts an entry before it takes it, and may do so while this looks.
    offered.saturating_sub(ended.saturating_add(taken)) < most
}

/// Adds one, whatever other CPUs do meanwhile. Rust has no atomic addition for this target.
#[inline(always)]
fn add(count: *mut u64) {
    // SAFETY: an aligned word of a map, which every CPU changes by this instruction only.
    unsafe { asm!("lock *(u64 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1_u64) };
}
