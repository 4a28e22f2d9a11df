//! How COPY data is laid out.

use super::*;

#[test]
fn copy_options_are_told() {
    let statements = understood(
        "copy notes to stdout with (format csv, delimiter ';', null 'N', quote '''', header, force_quote (id))",
        &shop(),
    );
    let super::super::Effect::CopyOut(options) = &statements.list[0].effect else { panic!() };
    assert!(options.csv && options.header && !options.binary);
    assert_eq!(options.delimiter.as_deref(), Some(";"));
    assert_eq!((options.null.as_deref(), options.quote.as_deref()), (Some("N"), Some("'")));
}

#[test]
fn a_copy_s_header_is_read_as_the_server_reads_it() {
    for (written, there) in [
        ("header", true),
        ("header true", true),
        ("header 'ON'", true),
        ("header 1", true),
        ("header false", false),
        ("header 'FALSE'", false),
        ("header \"Off\"", false),
        ("header 0", false),
    ] {
        let statements = understood(&format!("copy notes to stdout with (format csv, {written})"), &shop());
        let super::super::Effect::CopyOut(options) = &statements.list[0].effect else { panic!() };
        assert_eq!(options.header, there, "{written}");
    }
}

#[test]
fn copy_options_that_two_could_read_differently_are_refused() {
    for written in [
        "header (off)",
        "header *",
        "header 2",
        "header 'no'",
        "delimiter *",
        "delimiter ('|')",
        "delimiter",
        "null *",
        "null ('x')",
        "quote *",
        "escape (a, b)",
        "format (csv)",
        "encoding *",
        "nosuch 1",
    ] {
        let text = format!("copy notes to stdout with (force_quote *, {written})");
        assert!(attempt(&text, &shop(), &Overlay::default()).is_err(), "{written}");
    }
}
