//! Digests of lists.

use aws_lc_rs::digest;

/// A digest (SHA-256) of parts in their order. Each comes after its length, so that no two lists of parts are the same bytes; a list
/// within it comes after its [`count`](Self::count).
#[derive(Clone)]
pub struct Parts(digest::Context);

impl Parts {
    /// Of this kind: the same parts of another kind have another digest.
    pub fn new(kind: &str) -> Self {
        let mut parts = Self(digest::Context::new(&digest::SHA256));
        parts.add(kind);
        parts
    }

    /// One more.
    pub fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// How many parts, or lists of parts, come next that belong together.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.add((count as u64).to_le_bytes())
    }

    /// The parts of a list.
    pub fn list(
        &mut self,
        parts: impl IntoIterator<Item: AsRef<[u8]>, IntoIter: ExactSizeIterator>,
    ) -> &mut Self {
        let parts = parts.into_iter();
        self.count(parts.len());
        parts.for_each(|part| {
            self.add(part);
        });
        self
    }

    /// What may be there.
    pub fn maybe(&mut self, part: Option<impl AsRef<[u8]>>) -> &mut Self {
        self.list(part.as_slice())
    }

    /// The digest.
    pub fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // SHA-256 has 32 bytes.
        bytes.copy_from_slice(self.0.finish().as_ref());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: impl for<'a> FnOnce(&'a mut Parts) -> &'a mut Parts) -> [u8; 32] {
        let mut parts = Parts::new("test");
        of(&mut parts);
        parts.finish()
    }

    #[test]
    fn lists_whose_parts_lie_otherwise_are_others() {
        let all = [
            digest(|parts| parts.add("ab").add("c")),
            digest(|parts| parts.add("a").add("bc")),
            digest(|parts| parts.add("abc")),
            digest(|parts| parts.list(["a", "b"]).list(["c"])),
            digest(|parts| parts.list(["a"]).list(["b", "c"])),
            digest(|parts| parts.maybe(None::<&str>).add("a")),
            digest(|parts| parts.maybe(Some("a"))),
            digest(|parts| parts),
            Parts::new("other").finish(),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(all.iter().skip(number + 1).all(|other| other != one), "{number}");
        }
    }

    #[test]
    fn the_same_parts_have_the_same_digest() {
        assert_eq!(digest(|parts| parts.list(["a", "b"])), digest(|parts| parts.count(2).add("a").add("b")));
    }
}
