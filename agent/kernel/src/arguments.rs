//! Command lines without the secrets in them.

/// What is shown for a secret.
const HIDDEN: &str = "***";
/// Arguments that are shown at most.
const MAX_ARGUMENTS: usize = 64;
/// Characters of one argument that are shown at most.
const MAX_CHARACTERS: usize = 512;

/// Words in the name of an option or variable that make its value a secret.
const SECRET_WORDS: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "bearer",
    "cookie",
    "signature",
    "pgpass",
];
/// Names that are secrets only as a whole: parts of too many others.
const SECRET_NAMES: [&str; 5] = ["pass", "pwd", "auth", "key", "pw"];

/// How tokens of well-known issuers begin, and how long they are at least.
const TOKEN_FORMS: [(&str, usize); 16] = [
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 20),
    ("glrt-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("sk-", 20),
    ("AKIA", 20),
    ("ASIA", 20),
    ("hvs.", 20),
    ("npm_", 20),
    ("eyJ", 30),
];

/// The arguments as they may be logged: values of options and variables that are named like secrets, passwords in URLs,
/// and well-known tokens are hidden. Better one value too many than one too few.
pub fn shown<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut hide_next = false;
    let mut shown = Vec::new();
    for (index, argument) in arguments.into_iter().enumerate() {
        if index == MAX_ARGUMENTS {
            shown.push("...".to_owned());
            break;
        }
        let is_option = argument.starts_with('-');
        if hide_next && !is_option {
            shown.push(HIDDEN.to_owned());
            hide_next = false;
            continue;
        }
        hide_next = is_option && !argument.contains('=') && is_secret_name(argument);
        shown.push(bounded(&argument_shown(argument)));
    }
    shown
}

fn argument_shown(argument: &str) -> String {
    // Headers (`Authorization: Bearer ...`) and assignments, wherever in the argument they stand.
    for separator in ['=', ':'] {
        if let Some((name, value)) = argument.split_once(separator)
            && !value.is_empty()
            && is_secret_name(name)
        {
            return format!("{name}{separator}{HIDDEN}");
        }
    }
    // mysql and sshpass take the password right behind the option.
    if let Some(value) = argument.strip_prefix("-p")
        && !value.is_empty()
        && !value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'-'))
    {
        return format!("-p{HIDDEN}");
    }
    argument.split(' ').map(word_shown).collect::<Vec<_>>().join(" ")
}

/// One word of an argument: shell commands and connection strings carry several.
fn word_shown(word: &str) -> String {
    if let Some((name, value)) = word.split_once('=')
        && !value.is_empty()
        && is_secret_name(name)
    {
        return format!("{name}={HIDDEN}");
    }
    if let Some(shown) = url_shown(word) {
        return shown;
    }
    let bare = word.trim_matches(|character: char| matches!(character, '"' | '\'' | ',' | ';' | '(' | ')'));
    let value = bare.rsplit(['=', ':']).next().unwrap_or(bare);
    let is_token =
        |text: &str| TOKEN_FORMS.iter().any(|(start, least)| text.starts_with(start) && text.len() >= *least);
    if is_token(bare) {
        return word.replace(bare, HIDDEN);
    }
    if is_token(value) {
        return word.replace(value, HIDDEN);
    }
    word.to_owned()
}

/// A URL whose password, and query values that are named like secrets, are hidden; none if it isn't one with any.
fn url_shown(word: &str) -> Option<String> {
    let (scheme, rest) = word.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{HIDDEN}@{host}"),
            // Git hosts take a token as the only part.
            None if user.len() >= 20 => format!("{HIDDEN}@{host}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    let path = match path.split_once('?') {
        Some((path, query)) => {
            let pairs: Vec<String> = query.split('&').map(pair_shown).collect();
            format!("{path}?{}", pairs.join("&"))
        }
        None => path.to_owned(),
    };
    Some(format!("{scheme}://{authority}{path}"))
}

fn pair_shown(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if is_secret_name(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    }
}

/// Whether an option, variable, header or parameter is named like a secret. Only the last word of a text that has
/// several counts.
fn is_secret_name(name: &str) -> bool {
    let last = name.rsplit([' ', '"', '\'', ';', '&', '(']).next().unwrap_or(name);
    let plain: String =
        last.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    // `--password-file` names a file, not a password.
    if ["file", "path", "dir", "stdin"].iter().any(|ending| plain.ends_with(ending)) {
        return false;
    }
    SECRET_NAMES.contains(&&*plain) || SECRET_WORDS.iter().any(|word| plain.contains(word))
}

fn bounded(argument: &str) -> String {
    match argument.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}...", argument.get(..end).unwrap_or_default()),
        None => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> String {
        shown(arguments.iter().copied()).join("|")
    }

    #[test]
    fn values_of_secret_options_are_hidden_in_both_forms() {
        assert_eq!(line(&["tool", "--password=hunter2"]), "tool|--password=***");
        assert_eq!(line(&["tool", "--password", "hunter2", "x"]), "tool|--password|***|x");
        assert_eq!(line(&["tool", "--api-key", "abc"]), "tool|--api-key|***");
        assert_eq!(line(&["tool", "--TOKEN", "abc"]), "tool|--TOKEN|***");
    }

    #[test]
    fn passwords_in_urls_and_connection_strings_are_hidden() {
        assert_eq!(line(&["psql", "postgres://ci:hunter2@db/shop"]), "psql|postgres://ci:***@db/shop");
        assert_eq!(line(&["psql", "host=db password=hunter2 user=ci"]), "psql|host=db password=*** user=ci");
        assert_eq!(
            line(&["curl", "https://a.b/c?x=1&access_token=q"]),
            "curl|https://a.b/c?x=1&access_token=***"
        );
    }

    #[test]
    fn a_password_with_an_at_sign_does_not_leak_its_rest() {
        assert_eq!(line(&["psql", "postgres://ci:hun@ter2@db/shop"]), "psql|postgres://ci:***@db/shop");
    }

    #[test]
    fn headers_variables_and_shell_commands_are_searched() {
        assert_eq!(line(&["curl", "-H", "Authorization: Bearer abc"]), "curl|-H|Authorization:***");
        assert_eq!(line(&["env", "PGPASSWORD=hunter2", "psql"]), "env|PGPASSWORD=***|psql");
        assert_eq!(line(&["sh", "-c", "PGPASSWORD=hunter2 psql -h db"]), "sh|-c|PGPASSWORD=***");
        assert_eq!(line(&["sh", "-c", "psql -h db; API_TOKEN=abc x"]), "sh|-c|psql -h db; API_TOKEN=***");
    }

    #[test]
    fn a_password_glued_to_its_option_is_hidden_and_a_port_is_not() {
        assert_eq!(line(&["mysql", "-phunter2"]), "mysql|-p***");
        assert_eq!(line(&["psql", "-p5432"]), "psql|-p5432");
        assert_eq!(line(&["docker", "run", "-p127.0.0.1:80:80"]), "docker|run|-p127.0.0.1:80:80");
    }

    #[test]
    fn tokens_of_known_issuers_are_hidden_wherever_they_stand() {
        assert_eq!(line(&["x", "ghp_0123456789abcdefghij"]), "x|***");
        assert_eq!(line(&["x", "use glpat-0123456789abcdefghij now"]), "x|use *** now");
        assert_eq!(line(&["x", "header=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"]), "x|header=***");
    }

    #[test]
    fn ordinary_arguments_are_shown_as_they_are() {
        let plain =
            ["pg_dump", "--host=db", "-U", "ci", "--passwordless", "-c", "select 1", "--password-file", "/x"];
        let shown = line(&plain);
        assert!(shown.starts_with("pg_dump|--host=db|-U|ci|"), "{shown}");
        assert!(shown.ends_with("-c|select 1|--password-file|/x"), "{shown}");
    }

    #[test]
    fn long_command_lines_are_cut() {
        let long = "x".repeat(10_000);
        let many: Vec<&str> = std::iter::repeat_n("a", 1_000).collect();
        assert!(line(&[&long]).len() < 600);
        assert_eq!(shown(many).len(), MAX_ARGUMENTS + 1);
    }
}
