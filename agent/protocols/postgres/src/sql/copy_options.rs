//! The options of a COPY: what shapes its data, read as the server reads it. Where the gate can't be sure of that, it refuses.

use pg_query::{
    NodeEnum,
    protobuf::{DefElem, Node},
};

use super::{
    expression::{inner, literal_text},
    parse::NotUnderstood,
    statement::CopyOptions,
    tracer::Result,
};

impl CopyOptions {
    /// Reads them in their old and their new spelling.
    pub(super) fn read(list: &[Node]) -> Result<Self> {
        let mut options = Self::default();
        for node in list {
            if let Some(NodeEnum::DefElem(option)) = inner(node) {
                options.take(option)?;
            }
        }
        Ok(options)
    }

    fn take(&mut self, option: &DefElem) -> Result<()> {
        match option.defname.as_str() {
            "format" => match text(option)?.as_str() {
                "csv" => self.csv = true,
                "binary" => self.binary = true,
                "text" => {}
                _ => return Err(unreadable(option)),
            },
            "delimiter" => self.delimiter = Some(text(option)?),
            "null" => self.null = Some(text(option)?),
            "quote" => self.quote = Some(text(option)?),
            "escape" => self.escape = Some(text(option)?),
            "header" => self.header = header(option)?,
            "encoding" => self.encoding = Some(text(option)?),
            // These shape no data that the gate reads: what it shows is quoted where that is needed.
            "force_quote"
            | "freeze"
            | "force_not_null"
            | "force_null"
            | "default"
            | "on_error"
            | "log_verbosity"
            | "reject_limit"
            | "convert_selectively" => {}
            _ => return Err(unreadable(option)),
        }
        Ok(())
    }
}

/// A value that is written as a plain literal or word. The server takes lists and `*` for texts, too (`defGetString`).
fn text(option: &DefElem) -> Result<String> {
    option.arg.as_deref().and_then(literal_text).ok_or_else(|| unreadable(option))
}

/// Whether there is a header. `match` is for data from the client, where it means that there is one.
fn header(option: &DefElem) -> Result<bool> {
    if option.arg.is_none() {
        return Ok(true);
    }
    match text(option)?.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" | "match" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(unreadable(option)),
    }
}

fn unreadable(option: &DefElem) -> NotUnderstood {
    NotUnderstood::new(format!(
        "COPY with the option {}, of which the gate can't tell what it does",
        option.defname
    ))
}
