//! What rules ask of the process.

use std::sync::Arc;

use super::{Loader, list};
use crate::{
    facts::Facts,
    matcher::Globs,
    raw::{List, RawRule},
    yaml::At,
};

impl Loader<'_> {
    /// What a rule asks of the process.
    pub(super) fn facts(&self, raw: &RawRule) -> Facts {
        Facts {
            executables: self.globs(raw.executables.as_ref()),
            sha256: raw.sha256.as_ref().map(|digests| self.digests(digests)),
            units: self.unit_globs(raw.units.as_ref()),
            containers: self.globs(raw.containers.as_ref()),
            images: raw.images.as_ref().map(|images| self.images(images)),
        }
    }

    /// Globs on units that hold processes; one that can match none is reported.
    fn unit_globs(&self, raw: Option<&At<List<String>>>) -> Option<Globs> {
        for (at, glob) in list(raw) {
            if ![".service", ".scope", "*", "?", "]", "}"].iter().any(|end| glob.ends_with(end)) {
                self.problems.report_with(
                    at,
                    format!("{glob:?} matches no unit that processes are in"),
                    "write ci.service or ci@*.scope; a slice chooses a subject",
                );
            }
        }
        self.globs(raw)
    }

    /// SHA-256 digests; what is none is reported.
    fn digests(&self, raw: &At<List<String>>) -> Vec<Arc<str>> {
        self.sound(raw, |text| {
            let what = || format!("{text:?} is not a SHA-256 digest in hexadecimal");
            let digest =
                digest(text).ok_or_else(|| (what(), "write what `sha256sum` prints before the path"))?;
            Ok(digest.into())
        })
    }

    /// Ids of images; what is none is reported.
    fn images(&self, raw: &At<List<String>>) -> Vec<Arc<str>> {
        self.sound(raw, |text| {
            let what = || format!("{text:?} is not the id of an image");
            let hint = "write what `docker image inspect --format '{{.Id}}' NAME` prints; names can be moved to other images";
            let digits = digest(text.strip_prefix("sha256:").unwrap_or(text)).ok_or_else(|| (what(), hint))?;
            Ok(format!("sha256:{digits}").into())
        })
    }

    /// What of a list is sound; the rest is reported with a hint, and that the list is empty.
    fn sound(
        &self,
        raw: &At<List<String>>,
        read: impl Fn(&str) -> Result<Arc<str>, (String, &'static str)>,
    ) -> Vec<Arc<str>> {
        if raw.get().is_some_and(Vec::is_empty) {
            self.problems.report_with(
                raw.at,
                "an empty list matches nothing",
                "leave the key out, or list some",
            );
        }
        let mut sound = Vec::new();
        for (at, text) in list(Some(raw)) {
            match read(text) {
                Ok(read) => sound.push(read),
                Err((what, hint)) => self.problems.report_with(at, what, hint),
            }
        }
        sound
    }
}

/// A SHA-256 digest in lower-case hexadecimal.
fn digest(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}
