//! What a bundle says of files, Unix sockets and the kernel itself.

use std::{path::PathBuf, sync::Arc};

/// Files that some subjects can't open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShieldedFiles {
    /// Name within the bundle.
    pub name: Arc<str>,
    /// Names of the subjects.
    pub subjects: Vec<Arc<str>>,
    /// The files.
    pub files: Vec<FilePattern>,
}

/// Files by their own name and that of the folder they lie in, wherever that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePattern {
    /// The folder's name; none for any.
    pub folder: Option<Arc<str>>,
    /// The file's name.
    pub name: FileName,
}

/// Names of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileName {
    /// This one.
    Is(Arc<str>),
    /// Those that begin so.
    Begins(Arc<str>),
    /// Those that end so.
    Ends(Arc<str>),
}

/// Listeners of ungoverned processes that some subjects may talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixPass {
    /// Names of the subjects.
    pub subjects: Vec<Arc<str>>,
    /// What the listeners are bound to.
    pub to: Vec<UnixAddress>,
}

/// What a Unix socket is bound to (unix(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixAddress {
    /// An absolute path.
    Path(PathBuf),
    /// An abstract name, without its leading zero.
    Abstract(Arc<str>),
}

/// What a bundle insists on: without it the agent doesn't start, or keeps the bundle it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// The shield, with all its hooks: files, Unix sockets, socket families, other processes (Linux 6.1 with `bpf` among
    /// its security modules).
    Shield,
    /// An authority of this host that may not vouch for just any name and address: `authority: {names: [...]}` of the agent's
    /// configuration.
    ConstrainedAuthority,
    /// Who connects to which Unix socket is decided: by the shield, or by name from Linux 6.7 on.
    UnixSockets,
    /// The tier `recommended` of `tidegate doctor`, or a higher one.
    Recommended,
    /// The tier `hardened`, or a higher one.
    Hardened,
    /// The tier `full`.
    Full,
}
