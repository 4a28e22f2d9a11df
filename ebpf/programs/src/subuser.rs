//! Sub-uids: the ids that a user may give to processes in a user namespace of its own (subuid(5)). They count as the user.

use aya_ebpf::btf_maps::lpm_trie::Key;
use tidegate_abi::{Generation, LOOKS_AT_SUB_USERS, SubUser, SubUserKey};

use crate::maps::SUB_USERS;
use crate::rules;

/// Whose sub-uid this is, and the subjects that it is one of by that.
#[inline(always)]
pub fn of(generation: &Generation, uid: u32) -> Option<SubUser> {
    if generation.looks & LOOKS_AT_SUB_USERS == 0 {
        return None;
    }
    let key = SubUserKey { generation: generation.number, uid: uid.to_be_bytes() };
    SUB_USERS.get(&Key::new(SubUserKey::ALL_BITS, key)).copied()
}

/// The user that this one counts as, itself if it is nobody's sub-uid.
#[inline(always)]
pub fn owner(uid: u32) -> u32 {
    rules::active().ok().and_then(|generation| of(&generation, uid)).map_or(uid, |user| user.owner)
}
