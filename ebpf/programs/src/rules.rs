//! The active generation of the rules.

use tidegate_abi::{GENERATION_SLOTS, Generation};

use crate::maps::{ACTIVE, GENERATIONS};

/// The rules changed under the program more often than it looks again.
pub struct Unsettled;

/// Number of the active generation.
#[inline(always)]
pub fn number() -> u32 {
    match ACTIVE.get_ptr(0) {
        // SAFETY: an aligned word that user space replaces whole; volatile, so that a second look is a look.
        Some(number) => unsafe { core::ptr::read_volatile(number) as u32 },
        None => 0,
    }
}

/// The active generation.
#[inline(always)]
pub fn active() -> Result<Generation, Unsettled> {
    let number = number();
    match GENERATIONS.get(number % GENERATION_SLOTS) {
        Some(generation) if generation.number == number => Ok(*generation),
        _ => Err(Unsettled),
    }
}
