//! Runs the detectors of a mask over a text.

use std::ops::Range;

use tidegate_policy::{Content, ContentMask, Show};

use super::{Find, email, keys, keys::KeyShapes, numbers};

/// What a mask's detectors find in a text, in order and without overlaps.
pub(super) fn finds<'m>(shapes: &KeyShapes, mask: &'m ContentMask, bytes: &[u8]) -> Vec<Find<'m>> {
    let mut all = Vec::new();
    for (content, show) in &mask.finds {
        let mut found = |span: Range<usize>| {
            if !span.is_empty() {
                all.push(Find { span, show });
            }
        };
        match content {
            Content::Card => numbers::cards(bytes, &mut found),
            Content::Phone => numbers::phones(bytes, &mut found),
            Content::UsSsn => numbers::us_ssns(bytes, &mut found),
            Content::Iban => numbers::ibans(bytes, &mut found),
            Content::Email => email::emails(bytes, &mut found),
            Content::CloudKey => shapes.cloud_keys(bytes, &mut found),
            Content::Jwt => keys::jwts(bytes, &mut found),
            Content::PrivateKey => shapes.private_keys(bytes, &mut found),
            Content::Pattern(_, pattern) => patterns(pattern, bytes, &mut found),
        }
    }
    merge(all)
}

/// Own patterns see each stretch of valid UTF-8 as a text of its own.
fn patterns(pattern: &regex::Regex, bytes: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut start = 0;
    for chunk in bytes.utf8_chunks() {
        for hit in pattern.find_iter(chunk.valid()) {
            found(start + hit.start()..start + hit.end());
        }
        start += chunk.valid().len() + chunk.invalid().len();
    }
}

/// Overlapping finds become one, shown the way that hides most.
fn merge(mut all: Vec<Find<'_>>) -> Vec<Find<'_>> {
    all.sort_by_key(|find| (find.span.start, find.span.end));
    all.dedup_by(|next, kept| {
        if next.span.start >= kept.span.end {
            return false;
        }
        kept.span.end = kept.span.end.max(next.span.end);
        if visible(next.show) < visible(kept.show) {
            kept.show = next.show;
        }
        true
    });
    all
}

/// How much of a value a mask lets be seen, for comparison.
fn visible(show: &Show) -> (u8, usize) {
    match show {
        Show::Null => (0, 0),
        Show::Redact(_) => (1, 0),
        Show::Token => (2, 0),
        Show::Keep { first, last } => (3, first.saturating_add(*last)),
    }
}
