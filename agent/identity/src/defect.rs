//! Why a token does not count.

use std::time::Duration;

use thiserror::Error;
use tidegate_policy::Algorithm;

/// Why a token does not count, worded for whoever presented it. Never carries any part of the token: what a token that
/// is not verified says is anybody's text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Defect {
    /// No token is that long.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// Not three parts of base64url, or not the JSON that they should be.
    #[error("it is not a signed ID token: {0}")]
    Malformed(&'static str),
    /// Its header names another algorithm than those pinned: `none`, one with a shared key, or simply another.
    #[error("it is not signed with {}", algorithms(.0))]
    Algorithm(Vec<Algorithm>),
    /// Its header has extensions that must be understood (RFC 7515, section 4.1.11).
    #[error("its header has critical extensions, which nobody here understands")]
    Critical,
    /// `typ` says that it is another kind of token.
    #[error("it is no ID token but another kind of token, by its header's `typ`")]
    OtherKind,
    /// `iss` is another.
    #[error("it is from another issuer than {0}")]
    Issuer(String),
    /// The issuer has no such key.
    #[error("it is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The issuer's keys cannot be had.
    #[error("the issuer cannot be asked for its keys: {0}")]
    NoKeys(String),
    /// The signature is another's, or the token was changed.
    #[error("its signature is wrong: it was changed, or somebody else signed it")]
    Signature,
    /// `aud` is another, or not ours alone.
    #[error("it is for another audience than {0:?}, or not for that one alone")]
    Audience(String),
    /// `exp` is past.
    #[error("it expired {} ago", seconds(.0))]
    Expired(Duration),
    /// `nbf` or `iat` is yet to come.
    #[error("it is valid only in {}", seconds(.0))]
    NotYet(Duration),
    /// A claim that every ID token has is missing or is not what it should be.
    #[error("its claim `{0}` is missing or is not {1}")]
    Claim(&'static str, &'static str),
    /// A claim that the bundle requires is missing or is another.
    #[error("its claim `{0}` is missing or is not what is required")]
    Required(String),
    /// It counts for another process tree.
    #[error("it, or one of the same step, was presented first by another process tree, which still lives")]
    Elsewhere,
    /// The process tree that presented it has ended.
    #[error(
        "it, or one of the same step, was presented before, by a process tree that has ended: get a new one"
    )]
    Replayed,
    /// This process tree is somebody else to the issuer.
    #[error("this process tree presented a token of somebody else already; `tidegate logout` ends that")]
    SomebodyElse,
    /// The process is gone, or nothing lives that the token could count for.
    #[error("there is no process tree that it could count for: {0}")]
    NoTree(&'static str),
    /// The caller's session may be another job's, too.
    #[error(
        "for the shell that ran this it counts only where the job has a session of its own (`setsid`, or a terminal), and no \
         user's own manager runs it (`systemctl --user`): run \
         `tidegate present --token-file FILE -- COMMAND`, and it counts for COMMAND"
    )]
    NoSession,
    /// Whoever hands the token out did not.
    #[error("{0}")]
    NotHandedOut(String),
    /// The bundle takes no tokens of that issuer in this way.
    #[error("{0}")]
    NotTaken(String),
    /// That it was used cannot be kept.
    #[error("that it was used cannot be written down, so it does not count; see the agent's log")]
    NotKept,
    /// Too many tokens are kept.
    #[error("too many tokens are in use on this host")]
    Full,
}

fn algorithms(pinned: &[Algorithm]) -> String {
    pinned.iter().map(Algorithm::to_string).collect::<Vec<_>>().join(" or ")
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs())
}
