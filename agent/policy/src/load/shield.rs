//! Shielded files, Unix sockets, and what the kernel must be able to do.

use std::sync::Arc;

use super::{Loader, entries, list, readable};
use crate::{
    FileName, FilePattern, Requirement, Resource, ShieldedFiles, UnixAddress, UnixPass,
    problem::Position,
    raw::{List, RawFile},
    rule::Names,
    yaml::At,
};

/// Bytes of a name that the kernel side compares.
const LONGEST_NAME: usize = 63;
/// Bytes of a Unix socket's path (unix(7)), with a zero behind it.
const LONGEST_SOCKET: usize = 107;

impl Loader<'_> {
    pub(super) fn files(&self, raw: &[RawFile]) -> Vec<ShieldedFiles> {
        let sections = raw.iter().flat_map(|file| entries(file.files.as_ref()));
        sections
            .map(|(_, name, files)| ShieldedFiles {
                name: name.into(),
                subjects: match &files.subjects {
                    Some(subjects) => self.subject_names(subjects),
                    None => self.subjects.keys().map(|name| name.as_str().into()).collect(),
                },
                files: list(Some(&files.names))
                    .filter_map(|(at, text)| self.file_pattern(at, text))
                    .collect(),
            })
            .collect()
    }

    pub(super) fn unix(&self, raw: &[RawFile], resources: &[Arc<Resource>]) -> Vec<UnixPass> {
        let passes = raw.iter().flat_map(|file| list(file.unix.as_ref()));
        passes
            .map(|(_, pass)| UnixPass {
                subjects: self.subject_names(&pass.subjects),
                to: list(Some(&pass.to))
                    .filter_map(|(at, text)| {
                        let address = self.unix_address(at, text)?;
                        self.no_resource(at, &address, resources);
                        Some(address)
                    })
                    .collect(),
            })
            .collect()
    }

    fn no_resource(&self, at: Position, address: &UnixAddress, resources: &[Arc<Resource>]) {
        let UnixAddress::Path(path) = address else { return };
        if let Some(resource) = resources.iter().find(|resource| resource.sockets.contains(path)) {
            self.problems.report(
                at,
                format!("this would pass connections to resource {:?} by the gate", resource.name),
            );
        }
    }

    pub(super) fn required(&self, raw: &[RawFile]) -> Vec<Requirement> {
        let mut required: Vec<Requirement> = Vec::new();
        for requirement in
            raw.iter().filter_map(|file| file.require.as_ref()?.get()).flat_map(|list| readable(list))
        {
            if !required.contains(requirement.1) {
                required.push(*requirement.1);
            }
        }
        required
    }

    fn subject_names(&self, raw: &At<List<String>>) -> Vec<Arc<str>> {
        match self.names("subject", raw, &self.subjects) {
            Names::All => self.subjects.keys().map(|name| name.as_str().into()).collect(),
            Names::These(names) => names,
        }
    }

    fn file_pattern(&self, at: Position, text: &str) -> Option<FilePattern> {
        let problem = |problem: &str, help: &str| {
            self.problems.report_with(at, format!("{text:?} {problem}"), help);
            None
        };
        let (folder, name) = match text.rsplit_once('/') {
            Some((folder, name)) => (Some(folder), name),
            None => (None, text),
        };
        if folder.is_some_and(|folder| folder.is_empty() || folder.contains(['/', '*']) || folder == "~") {
            return problem(
                "has more than a file's name and that of its folder",
                "whoever may make mounts chooses what a path leads to, so only these two names count: write \
                 `.aws/credentials`, or `.pgpass` alone",
            );
        }
        let parsed = if let Some(start) = name.strip_suffix('*') {
            (start, FileName::Begins as fn(Arc<str>) -> FileName)
        } else if let Some(end) = name.strip_prefix('*') {
            (end, FileName::Ends as fn(Arc<str>) -> FileName)
        } else {
            (name, FileName::Is as fn(Arc<str>) -> FileName)
        };
        if parsed.0.is_empty() || parsed.0.contains('*') || matches!(parsed.0, "." | "..") {
            return problem("names no file", "a name may begin or end with one `*`, and says more than that");
        }
        if [Some(parsed.0), folder].into_iter().flatten().any(|name| name.len() > LONGEST_NAME) {
            return problem("is too long", "a name has at most 63 bytes; end it with `*`");
        }
        Some(FilePattern { folder: folder.map(Into::into), name: parsed.1(parsed.0.into()) })
    }

    pub(super) fn unix_address(&self, at: Position, text: &str) -> Option<UnixAddress> {
        let too_long = text.len() > LONGEST_SOCKET;
        if let Some(name) = text.strip_prefix('@').filter(|name| !name.is_empty() && !too_long) {
            return Some(UnixAddress::Abstract(name.into()));
        }
        if text.starts_with('/') && text.len() > 1 && !text.contains('*') && !too_long {
            // Names are compared as they are written, here and in the kernel.
            if text.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
                self.problems.report_with(
                    at,
                    format!("{text:?} says `//`, `.` or `..`, or ends with a slash"),
                    "write the path that the socket is bound to, each folder once",
                );
                return None;
            }
            return Some(UnixAddress::Path(text.into()));
        }
        self.problems.report_with(
            at,
            format!("{text:?} is no Unix socket's name"),
            "write the absolute path that it is bound to (`/run/dbus/system_bus_socket`), or `@name` for an abstract name",
        );
        None
    }
}
