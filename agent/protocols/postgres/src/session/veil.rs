//! Values that approvers are not shown: what has to do with a column that is masked, whomever the mask is for.
//!
//! Nobody knows what an approver may see, so a value that is tied to such a column is shown the way its mask says, and in what
//! touches one a value of which nobody can say what it is, and every comment, is not shown at all. An answer is for the very
//! bytes all the same.

use std::{collections::BTreeSet, sync::Arc};

use tidegate_gate::{
    Masker,
    policy::{FieldMasks, Path, Shape, Show, Value},
};

use super::{Session, asking::recorded, names::Prepared, refuse::Refused};
use crate::sql::{self, Kind, Piece, Place, Tie};

/// What stands for a string that is not shown.
const HIDDEN: &str = "'[masked]'";

/// What hides columns of the resource, from whomever.
pub(super) struct Veil {
    masks: Arc<FieldMasks>,
    masker: Arc<Masker>,
}

/// The same, over one text and what it runs with.
pub(super) struct Veiled<'v> {
    veil: Option<&'v Veil>,
    /// How a value is shown of which nobody can say what it is, if not as it is.
    untied: Option<Arc<Show>>,
    ties: Vec<Tie>,
}

impl Session {
    /// None where no column is masked for anybody.
    pub(super) fn veil(&self) -> Option<Veil> {
        let masks = self.gate.fields_masked_for_anybody()?;
        Some(Veil { masks, masker: self.masker() })
    }

    /// What of this statement is not shown.
    pub(super) fn veiled<'v>(&self, veil: Option<&'v Veil>, prepared: &Prepared) -> Veiled<'v> {
        let ties = || self.database.ties(&prepared.text, &self.overlay).unwrap_or_default();
        let ties = veil.map_or_else(Vec::new, |_| ties());
        Veiled { ties, ..Veiled::over(veil, &prepared.shape) }
    }

    /// A statement's text as approvers may read it. What decides what runs is never hidden from them.
    pub(super) fn readable(&self, veil: Option<&Veil>, prepared: &Prepared) -> Result<String, Refused> {
        if veil.is_some_and(|veil| veil.is_touched_by(&prepared.shape)) && holds_code(prepared) {
            let why = "this needs an approval, and beside what is masked approvers could not be shown the code or setting in \
                       it; send that by itself";
            return Err(Refused::new("42501", why));
        }
        let text = recorded(prepared);
        Ok(match *text == *prepared.text {
            // The gate's own words.
            true if is_function_call(&prepared.shape) => text.into_owned(),
            true => self.veiled(veil, prepared).text(&text),
            // What stands where in it is another matter.
            false => Veiled::over(veil, &prepared.shape).text(&text),
        })
    }
}

impl<'v> Veiled<'v> {
    /// Over what does this, of whose values nobody can say what they are.
    pub(super) fn over(veil: Option<&'v Veil>, shape: &Shape) -> Self {
        let untied = veil.is_some_and(|veil| veil.is_touched_by(shape)).then(Arc::<Show>::default);
        Self { veil, untied, ties: Vec::new() }
    }

    /// A text. Where it can't be cut into tokens, nothing behind its first quote is shown.
    pub(super) fn text(&self, text: &str) -> String {
        let Some(veil) = self.veil else { return text.to_owned() };
        let Some(pieces) = sql::pieces(text) else {
            let quote = self.untied.as_ref().and_then(|_| text.find(['\'', '$']));
            return quote.map_or(text, |quote| text.get(..quote).unwrap_or_default()).to_owned()
                + quote.map_or("", |_| HIDDEN);
        };
        let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
        for piece in pieces {
            let Some(show) = self.show(|place| stands_at(place, &piece, text), piece.kind) else { continue };
            shown.push_str(text.get(at..piece.span.start).unwrap_or_default());
            shown.push_str(&veil.written(
                text.get(piece.span.clone()).unwrap_or_default(),
                piece.kind,
                &show,
            ));
            at = piece.span.end;
        }
        shown.push_str(text.get(at..).unwrap_or_default());
        shown
    }

    /// The value of a parameter, as people read it.
    pub(super) fn parameter(&self, number: usize, value: Vec<u8>) -> Vec<u8> {
        let show = self.show(|place| place == Place::Parameter(number), Kind::Notation);
        match (self.veil, show) {
            (Some(veil), Some(show)) => veil.masker.show(&show, &value).unwrap_or_else(|| b"NULL".to_vec()),
            _ => value,
        }
    }

    /// How what stands here is shown; none: as it is.
    fn show(&self, is_here: impl Fn(Place) -> bool, kind: Kind) -> Option<Arc<Show>> {
        let veil = self.veil?;
        let ties = self.ties.iter().filter(|tie| kind != Kind::Comment && is_here(tie.place));
        let (mut columns, mut untraced) = (BTreeSet::<&Path>::new(), false);
        for tie in ties {
            columns.extend(&tie.columns);
            untraced |= tie.untraced;
        }
        if columns.is_empty() || untraced {
            return self.untied.clone();
        }
        veil.masks.strictest(columns.iter().map(|path| &***path))
    }
}

impl Veil {
    /// Whether it has to do with a masked column. What can't be followed has, where it touches a table that may hold one; what it
    /// gives a function that nobody can follow is no column's value by that.
    fn is_touched_by(&self, shape: &Shape) -> bool {
        let named = shape.items.iter().flat_map(|item| &item.fields).filter_map(|field| match field {
            ("columns", Value::Set(columns)) => Some(columns.iter()),
            _ => None,
        });
        let outputs = shape.results.iter().flat_map(|result| &result.outputs);
        let mut columns = named
            .flatten()
            .chain(outputs.flat_map(|output| &output.sources))
            .chain(shape.influences.iter().chain(&shape.copied).chain(&shape.computed));
        let untraced =
            shape.untraced.is_some() || shape.results.iter().any(|result| result.untraced.is_some());
        untraced && shape.touched.iter().any(|table| self.masks.reach(&format!("{table}.")))
            || columns.any(|path| self.masks.show(path).is_some())
    }

    /// A piece of a text in the form that a value of its kind has.
    fn written(&self, piece: &str, kind: Kind, show: &Show) -> String {
        let masked = |value: &str| {
            let shown = self.masker.show(show, value.as_bytes());
            shown.map(|shown| String::from_utf8_lossy(&shown).into_owned())
        };
        let shown = match kind {
            Kind::Comment => return "/* [masked] */".to_owned(),
            Kind::Notation => return HIDDEN.to_owned(),
            Kind::Number => masked(piece),
            Kind::String => {
                let value = piece.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let shown = masked(&value.unwrap_or_default().replace("''", "'"));
                shown.map(|shown| format!("'{}'", shown.replace('\'', "''")))
            }
        };
        shown.unwrap_or_else(|| "NULL".to_owned())
    }
}

/// Whether it is a call by oid, which has no text of its own.
fn is_function_call(shape: &Shape) -> bool {
    shape.items.iter().any(|item| item.fields.contains(&("statement", Value::Word("function-call"))))
}

/// Whether a string in it is no value but what runs, or how: a body, a program, a setting.
fn holds_code(prepared: &Prepared) -> bool {
    const CODE: [&str; 11] = [
        "do",
        "create-function",
        "create-extension",
        "create-foreign",
        "execute-text",
        "copy-program",
        "copy-file",
        "load",
        "set",
        "set-role",
        "role",
    ];
    let is_code =
        |field: &(&str, Value)| matches!(field, ("statement", Value::Word(word)) if CODE.contains(word));
    prepared.statements.computes_settings
        || prepared.shape.items.iter().any(|item| item.fields.iter().any(is_code))
}

/// Whether a value stands here. The grammar has a negative number begin with its sign.
fn stands_at(place: Place, piece: &Piece, text: &str) -> bool {
    let Place::Text(at) = place else { return false };
    let is_signed = || text.get(at..piece.span.start).is_some_and(|before| before.trim_end() == "-");
    piece.kind != Kind::Comment && (at == piece.span.start || piece.kind == Kind::Number && is_signed())
}
