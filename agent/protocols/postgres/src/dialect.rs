//! Servers that read statements otherwise than the gate does.

use crate::sql;

/// The oldest version of servers on which values are followed to their columns.
const OLDEST: u32 = 15;

/// What a server said of itself at the sign-in, as far as it reads statements otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialect {
    /// Its version, where that is too old. In older ones a constant may have a name that a cast gave it, and a number may end where
    /// letters begin.
    old: Option<String>,
    /// The database's encoding, where that isn't UTF8: the case of letters beyond ASCII goes by its locale, how long a name is by
    /// its bytes, and two letters may become one.
    encoding: Option<String>,
}

impl Dialect {
    /// By the parameters that the server reported. What it doesn't tell is as it usually is.
    pub(crate) fn of(parameters: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let told = |wanted: &[u8]| {
            let (_, value) = parameters.iter().find(|(name, _)| name == wanted)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        Self {
            old: told(b"server_version").filter(|version| is_too_old(version)),
            encoding: told(b"server_encoding").filter(|encoding| !encoding.eq_ignore_ascii_case("utf8")),
        }
    }

    /// Why no columns can be masked there at all, if so.
    pub(crate) fn objection(&self) -> Option<String> {
        let version = self.old.as_ref()?;
        Some(format!(
            "the server is PostgreSQL {version}, and columns are masked only on servers from {OLDEST} on: older ones read \
             some statements otherwise"
        ))
    }

    /// Why a text can't be read there as the server reads it, if so.
    pub(crate) fn objection_to(&self, text: &str) -> Option<String> {
        let encoding = self.encoding.as_ref().filter(|_| sql::names_beyond_ascii(text))?;
        Some(format!(
            "the database's encoding is {encoding}, in which PostgreSQL reads names with letters beyond ASCII otherwise than \
             the gate, and columns are masked: name nothing by such letters"
        ))
    }

    /// Whether a name of the wire protocol's is the same to the server as to the gate.
    pub(crate) fn keeps(&self, name: &[u8]) -> bool {
        self.encoding.is_none() || name.is_ascii()
    }

    /// It reads all as the gate does.
    pub(crate) fn is_usual(&self) -> bool {
        self.old.is_none() && self.encoding.is_none()
    }
}

fn is_too_old(version: &str) -> bool {
    let major = version.split(|char: char| !char.is_ascii_digit()).next();
    major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < OLDEST)
}
