//! Units of the system's service manager, by the name of their cgroup (systemd.unit(5), systemd.slice(5)).

use tidegate_abi::{UNIT_NAME_BYTES, UnitKind, UnitName};

use crate::KernelError;

/// One unit, or all whose names begin so. It stands for a cgroup of that name below slices alone: what lies in another
/// service or scope was named by whoever that was delegated to, and that may be a governed user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitPattern {
    /// The whole name, or what comes before the `*`.
    name: String,
    kind: Kind,
    whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Service,
    Scope,
    Slice,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Service, Self::Scope, Self::Slice];

    fn ending(self) -> &'static str {
        match self {
            Self::Service => ".service",
            Self::Scope => ".scope",
            Self::Slice => ".slice",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| name.strip_suffix(kind.ending()).is_some_and(|stem| !stem.is_empty()))
    }
}

impl UnitPattern {
    /// From a unit's name, with at most one `*`, right before its ending: `ci@*.service`, `docker-*.scope`.
    ///
    /// # Errors
    ///
    /// [`KernelError::Rules`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, KernelError> {
        let wrong = |problem: &str| Err(KernelError::Rules(format!("unit {text:?}: {problem}")));
        let Some(kind) = Kind::of(text) else {
            return wrong("processes are in units that end in .service, .scope or .slice");
        };
        if text.contains('/') || text.len() >= UNIT_NAME_BYTES {
            return wrong("a unit's name has no `/` and is shorter than 120 bytes");
        }
        let stem = text.strip_suffix(kind.ending()).unwrap_or(text);
        match stem.split_once('*') {
            None => Ok(Self { name: text.to_owned(), kind, whole: true }),
            Some((start, "")) => Ok(Self { name: start.to_owned(), kind, whole: false }),
            Some(_) => wrong("only one `*` is understood, right before the ending"),
        }
    }

    /// Whether the cgroup at this path is such a unit's.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let (above, name) = path.rsplit_once('/').unwrap_or_default();
        are_slices(above)
            && if self.whole {
                name == self.name
            } else {
                Kind::of(name) == Some(self.kind) && name.starts_with(&self.name)
            }
    }

    /// Whether all that the other stands for is this one's too.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self == other || !self.whole && self.kind == other.kind && other.name.starts_with(&self.name)
    }

    /// The longest-prefix key, and how many bits of it count.
    pub(crate) fn key(&self, generation: u32) -> (u32, UnitName) {
        let mut name = [0; UNIT_NAME_BYTES];
        name.iter_mut().zip(self.name.bytes()).for_each(|(to, from)| *to = from);
        let kind = match self.kind {
            Kind::Service => UnitKind::Service,
            Kind::Scope => UnitKind::Scope,
            Kind::Slice => UnitKind::Slice,
        };
        // A whole name ends with its NUL.
        let bytes = self.name.len() + usize::from(self.whole);
        (UnitName::FIXED_BITS + 8 * bytes as u32, UnitName { generation, kind: kind as u32, name })
    }
}

/// Whether the cgroup at this path, and all it lies in, are slices; the root is.
pub(crate) fn are_slices(path: &str) -> bool {
    path.split('/').filter(|part| !part.is_empty()).all(|part| Kind::of(part) == Some(Kind::Slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        UnitPattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn a_unit_is_found_at_any_depth_of_slices() {
        assert!(matches("ci.service", "/system.slice/ci.service"));
        assert!(matches("ci.service", "/ci.slice/ci-jobs.slice/ci.service"));
        assert!(matches("ci.slice", "/ci.slice"));
        assert!(!matches("ci.service", "/system.slice/ci.service/inner"));
        assert!(!matches("ci.service", "/system.slice/other-ci.service"));
    }

    #[test]
    fn a_unit_of_a_users_own_manager_is_not_the_systems_unit_of_that_name() {
        assert!(!matches("ci.service", "/user.slice/user-1000.slice/user@1000.service/app.slice/ci.service"));
        assert!(!matches("ci.service", "/docker/ci.service"));
    }

    #[test]
    fn instances_and_containers_are_found_by_how_their_names_begin() {
        assert!(matches("ci@*.service", "/system.slice/ci@7.service"));
        assert!(!matches("ci@*.service", "/system.slice/ci@7.socket"));
        assert!(matches("docker-*.scope", "/system.slice/docker-3f1a.scope"));
        assert!(!matches("docker-*.scope", "/system.slice/docker-3f1a.service"));
    }

    #[test]
    fn a_pattern_contains_what_begins_with_it_and_is_of_its_kind() {
        let contains = |one: &str, other: &str| {
            UnitPattern::parse(one).unwrap().contains(&UnitPattern::parse(other).unwrap())
        };
        assert!(contains("ci@*.service", "ci@7.service") && contains("*.scope", "docker-*.scope"));
        assert!(!contains("ci@7.service", "ci@*.service") && !contains("*.scope", "ci.service"));
    }

    #[test]
    fn what_is_no_unit_is_an_error_that_names_it() {
        let long = format!("{}.service", "x".repeat(UNIT_NAME_BYTES));
        for wrong in ["ci", "ci.socket", ".service", "a*b.service", "*a*.scope", "a/b.service", &long] {
            let error = UnitPattern::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
