//! Settings that must stay as they are for the gate to read what the server reads.

/// Whether a session may have this setting. Names are case-insensitive; the reason is for the client.
pub(crate) fn setting_is_safe(name: &str, value: &str) -> Result<(), &'static str> {
    let value = value.trim().to_ascii_lowercase();
    match name.to_ascii_lowercase().as_str() {
        "standard_conforming_strings" if !is_on(&value) => {
            Err("standard_conforming_strings = off is refused because it changes how statements are read")
        }
        "client_encoding" if !is_utf8(&value) => {
            Err("a client_encoding other than UTF8 is refused because it changes how statements are read")
        }
        "backslash_quote" if value != "safe_encoding" && !is_off(&value) => {
            Err("backslash_quote = on is refused because it changes how statements are read")
        }
        "session_preload_libraries" | "local_preload_libraries" | "dynamic_library_path"
            if !value.is_empty() =>
        {
            Err("settings that load code into the server are refused")
        }
        _ => Ok(()),
    }
}

/// The settings that the startup parameter `options` makes: `-c name=value` and `--name=value`, words parted by white
/// space, a backslash before what is meant literally (as the server's `pg_split_opts`). Other switches are refused.
pub(crate) fn of_options(options: &str) -> Result<Vec<(String, String)>, String> {
    let mut words = words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word
            .strip_prefix("--")
            .or_else(|| word.strip_prefix("-c").filter(|rest| !rest.is_empty()))
        {
            Some(assignment) => assignment.to_owned(),
            None if word == "-c" => words.next().unwrap_or_default(),
            None => {
                return Err(format!("the startup option {word:?} is refused: only settings may be given"));
            }
        };
        match assignment.split_once('=') {
            Some((name, _)) if is_startup_parameter(name) => {
                return Err(format!("the startup option {name:?} is refused: it is no setting"));
            }
            Some((name, value)) => settings.push((name.replace('-', "_"), value.to_owned())),
            None => return Err(format!("the startup option {assignment:?} is not of the form name=value")),
        }
    }
    Ok(settings)
}

/// What a StartupMessage means by these names is no setting: which database, as whom, and how.
fn is_startup_parameter(name: &str) -> bool {
    matches!(name, "database" | "user" | "options" | "replication") || name.starts_with("_pq_.")
}

fn words(options: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = options.chars();
    while let Some(char) = chars.next() {
        match char {
            _ if char.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

/// Whether a value that isn't known beforehand could be a problem for this setting.
pub(super) fn value_matters(name: &str) -> bool {
    setting_is_safe(name, "\u{0}").is_err()
}

/// Whether statements do the same, and to the same, whatever this setting is. What it must be anyhow
/// ([`setting_is_safe`]) counts among them.
pub(crate) fn changes_nothing(name: &str) -> bool {
    matches!(
        name.to_ascii_lowercase().as_str(),
        "application_name"
            | "client_encoding"
            | "client_min_messages"
            | "idle_in_transaction_session_timeout"
            | "idle_session_timeout"
            | "lock_timeout"
            | "standard_conforming_strings"
            | "statement_timeout"
            | "transaction_timeout"
    )
}

/// Whether this setting changes who the session acts as.
pub(crate) fn is_role(name: &str) -> bool {
    name.eq_ignore_ascii_case("role") || name.eq_ignore_ascii_case("session_authorization")
}

/// As the server's `parse_bool` reads it: unambiguous prefixes count.
fn is_on(value: &str) -> bool {
    matches!(value, "on" | "1") || is_prefix(value, "true") || is_prefix(value, "yes")
}

fn is_off(value: &str) -> bool {
    matches!(value, "off" | "of" | "0") || is_prefix(value, "false") || is_prefix(value, "no")
}

fn is_prefix(value: &str, whole: &str) -> bool {
    !value.is_empty() && whole.starts_with(value)
}

/// As the server compares encoding names: letters and digits only.
fn is_utf8(value: &str) -> bool {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    matches!(plain.as_str(), "utf8" | "unicode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_change_how_text_is_read_are_refused() {
        for (name, value) in [
            ("standard_conforming_strings", "off"),
            ("STANDARD_CONFORMING_STRINGS", "0"),
            ("client_encoding", "SJIS"),
            ("client_encoding", "latin1"),
            ("client_encoding", "sql_ascii"),
            ("backslash_quote", "on"),
            ("local_preload_libraries", "x"),
        ] {
            assert!(setting_is_safe(name, value).is_err(), "{name} = {value}");
        }
    }

    #[test]
    fn startup_options_are_read_as_settings() {
        let settings = of_options(r"-c search_path=a,\ b  --statement-timeout=5s -cgeqo=off").unwrap();
        let expected = [("search_path", "a, b"), ("statement_timeout", "5s"), ("geqo", "off")];
        assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(of_options("").unwrap(), []);
    }

    #[test]
    fn startup_options_that_are_no_settings_are_refused() {
        for options in [
            "-f i",
            "-c geqo",
            "-c",
            "stray",
            "-P",
            "-c database=postgres",
            "--options=-cx=y",
            "-creplication=1",
        ] {
            assert!(of_options(options).is_err(), "{options}");
        }
    }

    #[test]
    fn what_drivers_set_is_let_through() {
        for (name, value) in [
            ("standard_conforming_strings", "on"),
            ("standard_conforming_strings", "true"),
            ("client_encoding", "UTF-8"),
            ("client_encoding", "'utf8'"),
            ("client_encoding", "UNICODE"),
            ("search_path", "evil"),
            ("datestyle", "ISO"),
            ("backslash_quote", "off"),
        ] {
            assert!(setting_is_safe(name, value).is_ok(), "{name} = {value}");
        }
        assert!(value_matters("client_encoding") && !value_matters("datestyle"));
    }
}
