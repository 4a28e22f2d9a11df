//! Counters that user space sums up.

use tidegate_abi::Counter;

use crate::maps::COUNTERS;

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's own value, and programs don't interrupt each other within one update that matters.
        unsafe { *value += 1 };
    }
}
