//! How many redirected connections wait for the agent: of each user no more than a share, so that nobody shuts the others
//! out.

use core::arch::asm;

use tidegate_abi::{ALL_USERS, MAX_HANDOFFS, MAX_HANDOFFS_PER_USER, Waiting};

use crate::maps::{TAKEN, WAITING};

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

/// Whether one more connection of the user's may wait. False also if it can't be counted.
#[inline(always)]
pub fn has_room(user: u32) -> bool {
    is_below(user, MAX_HANDOFFS_PER_USER) && is_below(ALL_USERS, MAX_HANDOFFS as u64)
}

/// One more waits.
#[inline(always)]
pub fn offered(user: u32) {
    for user in [user, ALL_USERS] {
        if let Some(waiting) = WAITING.get_ptr_mut(user) {
            // SAFETY: a value of the map, which is never deleted.
            add(unsafe { &raw mut (*waiting).offered });
        }
    }
}

/// One has gone without being taken.
#[inline(always)]
pub fn ended(user: u32) {
    for user in [user, ALL_USERS] {
        if let Some(waiting) = WAITING.get_ptr_mut(user) {
            // SAFETY: a value of the map, which is never deleted.
            add(unsafe { &raw mut (*waiting).ended });
        }
    }
}

#[inline(always)]
fn is_below(user: u32, most: u64) -> bool {
    // SAFETY: copied at once.
    let mut waiting = unsafe { WAITING.get(user) }.copied();
    if waiting.is_none() {
        // Another CPU may do the same, and be first.
        let _ = WAITING.insert(user, Waiting::default(), NOEXIST);
        // SAFETY: copied at once.
        waiting = unsafe { WAITING.get(user) }.copied();
    }
    let Some(Waiting { offered, ended, .. }) = waiting else { return false };
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
