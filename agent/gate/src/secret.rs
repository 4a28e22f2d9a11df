//! Values that are never shown.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret: wiped when dropped, redacted in `Debug`, without `Display` or `Serialize`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into_boxed_slice())
    }

    /// The bytes, for the one place that signs in with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_whatever_it_is_part_of() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "it is only shown")]
        struct Holder {
            secrets: Option<Vec<Secret>>,
        }
        let holder = Holder { secrets: Some(vec![Secret::new(b"hunter22".to_vec())]) };
        for shown in [format!("{holder:?}"), format!("{holder:#?}")] {
            assert!(shown.contains("Secret(***)"), "{shown}");
            let bytes = format!("{:?}", b"hunter22");
            assert!(!shown.contains("hunter22") && !shown.contains(&bytes), "{shown}");
        }
    }

    #[test]
    fn a_secret_is_wiped_when_it_is_dropped() {
        fn wipes<T: ZeroizeOnDrop>(mut secret: T, wipe: impl Fn(&mut T)) -> T {
            wipe(&mut secret);
            secret
        }
        let wiped = wipes(Secret::new(b"hunter22".to_vec()), Zeroize::zeroize);
        assert!(wiped.expose().iter().all(|byte| *byte == 0), "{:?}", wiped.expose());
    }
}
