//! Errors and notices of the server: what of them is shown.

use std::borrow::Cow;

use tidegate_gate::Masker;
use tidegate_policy::ContentMask;

use crate::wire::ErrorFields;

/// The fields of an `ErrorResponse` or `NoticeResponse` (54.8 of the manual) as the client may see them.
///
/// What a function of the database says by itself, or while it runs, may quote any column that it can read: with
/// `masks_columns`, it counts as withheld.
///
/// With `withhold`, the error may quote a masked column. Severity, SQLSTATE, position, the names of objects and the place
/// in the server's source stay, detail, hint, context and internal query go, and the message is replaced, unless its
/// SQLSTATE is of a class whose messages are about statements, names, connections or resources and never about values
/// (see [`quotes_no_value`]). A procedural language's RAISE chooses SQLSTATE, message and names freely, so nothing of it
/// is trusted. What stays passes the content masks.
pub(crate) fn error_fields<'a>(
    fields: ErrorFields<'a>,
    content: Option<&ContentMask>,
    withhold: bool,
    masks_columns: bool,
    masker: &Masker,
) -> ErrorFields<'a> {
    let value = |wanted: u8| fields.get(wanted).unwrap_or_default();
    let withhold = withhold || masks_columns && is_from_within(&fields);
    let sqlstate = value(b'C').to_vec();
    let is_raised = is_raised(value(b'F'), value(b'R'));
    let is_placed = !value(b'P').is_empty();
    let keeps_message = !withhold || (quotes_no_value(&sqlstate, is_placed) && !is_raised);
    let mut fields = fields;
    fields.retain(|code| match code {
        // Detail, hint, where, internal query and the position in it.
        b'D' | b'H' | b'W' | b'q' | b'p' => !withhold,
        // Schema, table, column, data type, constraint.
        b's' | b't' | b'c' | b'd' | b'n' => !(withhold && is_raised),
        _ => true,
    });
    fields.map(|code, text| match code {
        b'M' if !keeps_message => withheld(&sqlstate).into(),
        // Severity twice, SQLSTATE, positions, source file, line, routine: never data.
        b'S' | b'V' | b'C' | b'P' | b'p' | b'F' | b'L' | b'R' => text,
        _ => match content.map(|mask| masker.scan(mask, &text)) {
            Some(Cow::Owned(masked)) => Cow::Owned(masked),
            Some(Cow::Borrowed(_)) | None => text,
        },
    })
}

fn withheld(sqlstate: &[u8]) -> Vec<u8> {
    let sqlstate = String::from_utf8_lossy(sqlstate);
    format!("the server's message is withheld, because it may show a masked value (SQLSTATE {sqlstate})")
        .into_bytes()
}

/// Classes of SQLSTATE (appendix A of the manual) whose messages the server itself never fills with values of columns.
/// Those about names (an object, database, schema or feature that there isn't) quote what the statement says where the
/// error has a position in it; without one, it may be a value that was looked up as a name (`value::regclass`). Of
/// these, only a lacking privilege and a column that only the server fills (428C9) are sure to be about something that
/// exists.
/// Not among them, above all: 22 data exception, 23 integrity constraint violation, 44 with check option, P0 PL/pgSQL,
/// 00 and 01 (notices and warnings of anything), XX internal, and every class that isn't the server's own.
fn quotes_no_value(sqlstate: &[u8], is_placed: bool) -> bool {
    const CLASSES: [&[u8; 2]; 14] =
        [b"03", b"08", b"24", b"25", b"26", b"28", b"2D", b"34", b"3B", b"40", b"53", b"54", b"57", b"72"];
    const OF_NAMES: [&[u8; 2]; 4] = [b"0A", b"3D", b"3F", b"42"];
    matches!(sqlstate, b"42501" | b"428C9")
        || sqlstate
            .first_chunk::<2>()
            .is_some_and(|class| CLASSES.contains(&class) || is_placed && OF_NAMES.contains(&class))
}

/// Whether a function of the database had a part in it: it worded it, or ran when it came up. A COPY says in the same
/// place which of the client's own lines it is about, and a JSON parser, which of its value's.
fn is_from_within(fields: &ErrorFields<'_>) -> bool {
    let value = |wanted: u8| fields.get(wanted).unwrap_or_default();
    let context = value(b'W');
    let is_own = [&b"COPY "[..], b"JSON data"].iter().any(|own| context.starts_with(own));
    is_raised(value(b'F'), value(b'R')) || !context.is_empty() && (!is_own || context.contains(&b'\n'))
}

/// Whether a function in a procedural language worded this, by the source file or routine that reports it.
fn is_raised(file: &[u8], routine: &[u8]) -> bool {
    const FILES: [&[u8]; 6] = [b"pl_", b"plperl", b"plpy", b"pltcl", b"plv8", b"plr"];
    routine == b"exec_stmt_raise" || FILES.iter().any(|prefix| file.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_gate::Secret;
    use tidegate_policy::{Content, Show};

    use super::*;

    fn shown(fields: &[(u8, &str)], withhold: bool) -> Vec<(u8, String)> {
        let masker = Masker::new(Secret::new(vec![1; 32]));
        let mask = ContentMask { finds: vec![(Content::Email, Arc::new(Show::Redact("***".into())))] };
        let mut body = Vec::new();
        for (code, text) in fields {
            body.push(*code);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let shown = error_fields(ErrorFields::parse(&body).unwrap(), Some(&mask), withhold, false, &masker);
        shown.iter().map(|(code, text)| (code, String::from_utf8(text.to_vec()).unwrap())).collect()
    }

    const DUPLICATE: [(u8, &str); 8] = [
        (b'S', "ERROR"),
        (b'C', "23505"),
        (b'M', "duplicate key value violates unique constraint \"users_email_key\""),
        (b'D', "Key (email)=(alice@example.com) already exists."),
        (b't', "users"),
        (b'n', "users_email_key"),
        (b'F', "nbtinsert.c"),
        (b'R', "_bt_check_unique"),
    ];

    #[test]
    fn content_is_masked_where_nothing_is_withheld() {
        let fields = shown(&DUPLICATE, false);
        assert_eq!(fields.len(), DUPLICATE.len());
        assert_eq!(fields[2].1, DUPLICATE[2].1);
        assert_eq!(fields[3].1, "Key (email)=(***) already exists.");
    }

    #[test]
    fn a_withheld_error_keeps_its_code_and_names_but_no_value() {
        let fields = shown(&DUPLICATE, true);
        let codes: Vec<u8> = fields.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, b"SCMtnFR");
        assert_eq!(
            fields[2].1,
            "the server's message is withheld, because it may show a masked value (SQLSTATE 23505)"
        );
    }

    #[test]
    fn messages_about_the_statement_itself_stay() {
        let syntax = [
            (b'C', "42601"),
            (b'M', "syntax error at or near \"FORM\""),
            (b'P', "8"),
            (b'R', "scanner_yyerror"),
        ];
        assert_eq!(shown(&syntax, true), syntax.map(|(code, text)| (code, text.to_owned())));
    }

    #[test]
    fn a_value_for_a_column_that_only_the_server_fills_is_told_by_the_column_alone() {
        let message = "cannot insert a non-DEFAULT value into column \"id\"";
        let fields = [(b'C', "428C9"), (b'M', message), (b'D', "secret"), (b'R', "rewriteTargetListIU")];
        let shown = shown(&fields, true);
        assert_eq!(shown[1].1, message);
        assert!(shown.iter().all(|(_, text)| text != "secret"));
    }

    #[test]
    fn a_value_that_was_looked_up_as_a_name_is_withheld() {
        for (sqlstate, message) in [
            ("42P01", "relation \"4111111111111111\" does not exist"),
            ("42704", "type \"4111111111111111\" does not exist"),
            ("3F000", "schema \"4111111111111111\" does not exist"),
            ("3D000", "database \"4111111111111111\" does not exist"),
            ("0A000", "unit \"4111111111111111\" not supported for type date"),
            ("58P01", "could not open file \"4111111111111111\""),
            ("55000", "currval of sequence \"4111111111111111\" is not yet defined in this session"),
        ] {
            let fields = [(b'C', sqlstate), (b'M', message)];
            assert!(!shown(&fields, true)[1].1.contains("4111"), "{sqlstate}");
        }
        let placed = [(b'C', "42P01"), (b'M', "relation \"nosuch\" does not exist"), (b'P', "15")];
        assert_eq!(shown(&placed, true)[1].1, placed[1].1);
    }

    #[test]
    fn nothing_that_a_function_raises_is_trusted() {
        for place in [(b'R', "exec_stmt_raise"), (b'F', "plpy_elog.c")] {
            let fields = [(b'C', "42501"), (b'M', "secret"), (b'H', "secret"), (b't', "secret"), place];
            assert!(shown(&fields, true).iter().all(|(_, text)| text != "secret"));
        }
    }

    #[test]
    fn what_comes_from_within_a_function_is_withheld_where_columns_are_masked() {
        let masker = Masker::new(Secret::new(vec![1; 32]));
        let message_of = |place: &[(u8, &str)], masks_columns: bool| {
            let mut fields = ErrorFields::new("NOTICE", "22P02", "secret").into_owned();
            for (code, text) in place {
                fields = fields.with(*code, (*text).to_owned());
            }
            let fields = error_fields(fields, None, false, masks_columns, &masker);
            String::from_utf8_lossy(fields.get(b'M').unwrap()).into_owned()
        };
        let within: [&[(u8, &str)]; 4] = [
            &[(b'R', "exec_stmt_raise")],
            &[(b'F', "plpy_elog.c")],
            &[(b'W', "PL/pgSQL function f() line 3 at assignment")],
            &[(b'W', "SQL statement \"SELECT 1\"\nCOPY orders, line 1: \"1\"")],
        ];
        for place in within {
            assert!(!message_of(place, true).contains("secret"), "{place:?}");
            assert!(message_of(place, false).contains("secret"), "{place:?}");
        }
        let own: [&[(u8, &str)]; 3] = [
            &[(b'R', "DropErrorMsgNonExistent")],
            &[(b'W', "COPY orders, line 1, column id: \"x\"")],
            &[(b'W', "JSON data, line 1: {x")],
        ];
        for place in own {
            assert!(message_of(place, true).contains("secret"), "{place:?}");
        }
    }

    #[test]
    fn values_in_data_exceptions_and_unknown_states_are_withheld() {
        for sqlstate in ["22P02", "P0001", "XX000", "00000", "01000", "ZZ999", "", "4"] {
            let fields = [(b'C', sqlstate), (b'M', "invalid input syntax for type integer: \"secret\"")];
            assert!(!shown(&fields, true)[1].1.contains("secret"), "{sqlstate}");
        }
    }
}
