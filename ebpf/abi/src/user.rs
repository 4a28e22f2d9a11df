//! Lets user space read and write the types in maps.

use aya::Pod;

use crate::shield::{FileId, FileName, ShieldEvent, UnixAllowed, UnixName, UnixPath, UnixPeer, UnixWay};
use crate::{
    Agent, CgroupPath, Destination, DestinationKey, Generation, Handoff, HandoffKey, Host, Identity, Label,
    Listeners, NamespaceSeen, Stamp, SubUser, SubUserKey, SubjectKey, UnitName, Waiting,
};

macro_rules! plain_data {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, `Copy`, made of integers only and without padding: any bytes are a value of it.
            unsafe impl Pod for $name {}
        )+
    };
}

plain_data!(
    Agent,
    CgroupPath,
    Destination,
    DestinationKey,
    Generation,
    Handoff,
    HandoffKey,
    Host,
    Identity,
    Label,
    Listeners,
    NamespaceSeen,
    Stamp,
    SubUser,
    SubUserKey,
    SubjectKey,
    UnitName,
    Waiting,
);
plain_data!(FileId, FileName, ShieldEvent, UnixAllowed, UnixName, UnixPath, UnixPeer, UnixWay);
