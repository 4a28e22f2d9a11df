//! The page's words. Whatever others wrote is escaped, and shows the marks that would reorder or hide it.

use std::fmt::{self, Write};

use jiff::Timestamp;
use tidegate_approvals::{Inquiry, Person, Say, State};
use tidegate_gate::{Lines, Plain};

/// The page's only style; `pages` serves it by itself, as the page allows no other.
pub(crate) const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
pre { background: #f3f4f6; padding: 1rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
dt { font-weight: 600; float: left; clear: left; width: 9rem; } dd { margin: 0 0 .2rem 9rem; overflow-wrap: anywhere; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: .4rem; margin: .3rem 0 1rem; }
button { font: inherit; padding: .5rem 1.2rem; margin-right: .6rem; } .alert { color: #a40000; font-weight: 600; }
footer { margin-top: 2rem; color: #57606a; font-size: 14px; }
";

/// A text as HTML.
struct Escaped<T>(T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string().chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// What a form bears beside the answer.
pub(crate) struct Form<'a> {
    /// Proof that the page was shown to this login.
    pub(crate) token: &'a str,
    /// Digest of the question as it was shown.
    pub(crate) seal: &'a str,
    /// What this person may say.
    pub(crate) choices: &'a [Say],
}

/// One question, as whoever is logged in may see it.
pub(crate) fn question(inquiry: &Inquiry, person: &Person, form: &Form<'_>, problem: Option<&str>) -> String {
    let mut body = String::new();
    // Writing to a string cannot fail.
    let _ = write_question(&mut body, inquiry, form, problem);
    page(&format!("Approval {}", inquiry.id), &body, Some(person))
}

/// A page that says something.
pub(crate) fn message(title: &str, text: &str, person: Option<&Person>) -> String {
    page(title, &format!("<p>{}</p>", Escaped(Plain(text))), person)
}

fn page(title: &str, body: &str, person: Option<&Person>) -> String {
    let title = Escaped(Plain(title)).to_string();
    let who = person.map_or_else(String::new, |person| {
        let who = person.to_string();
        format!(
            "<footer><form method=\"post\" action=\"/logout\">You are {}. <button>Log out</button></form></footer>",
            Escaped(Plain(&who))
        )
    });
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><link rel=\"stylesheet\" href=\"/style.css\"></head>\
         <body><h1>{title}</h1>{body}{who}</body></html>"
    )
}

fn write_question(
    out: &mut String,
    inquiry: &Inquiry,
    form: &Form<'_>,
    problem: Option<&str>,
) -> fmt::Result {
    if let Some(problem) = problem {
        write!(out, "<p class=\"alert\">{}</p>", Escaped(Plain(problem)))?;
    }
    write!(out, "<p>It is <strong>{}</strong>.", inquiry.state)?;
    if inquiry.state == State::Waiting {
        let left = inquiry.expires.duration_since(Timestamp::now()).as_secs().max(0);
        write!(out, " It can be answered until {:.0}, for {left} s.", inquiry.expires)?;
    }
    if inquiry.review_owed {
        write!(out, " <span class=\"alert\">It ran at once, and a review is owed.</span>")?;
    }
    write!(out, "</p><h2>What will run</h2><pre>{}</pre>", Escaped(Lines(&inquiry.text)))?;
    if !inquiry.particulars.is_empty() {
        write!(out, "<dl>")?;
        for (name, value) in &inquiry.particulars {
            fact(out, &format!("with {name}"), value)?;
        }
        write!(out, "</dl>")?;
    }
    write_asker(out, inquiry)?;
    if !form.choices.is_empty() {
        write_form(out, inquiry, form)?;
    }
    write!(out, "<h2>What happened</h2><ul>")?;
    for event in &inquiry.trail {
        write!(out, "<li>{:.0} {}", event.time, Escaped(Plain(&event.step)))?;
        event.by.as_ref().map_or(Ok(()), |by| write!(out, " by {}", Escaped(Plain(by))))?;
        event.reason.as_ref().map_or(Ok(()), |reason| write!(out, ": {}", Escaped(Plain(reason))))?;
        write!(out, "</li>")?;
    }
    write!(out, "</ul>")
}

fn write_asker(out: &mut String, inquiry: &Inquiry) -> fmt::Result {
    let process = &inquiry.principal.process;
    write!(out, "<h2>Who asks</h2><dl>")?;
    fact(out, "account", &inquiry.asker().name)?;
    fact(out, "host", &inquiry.host)?;
    let program = process.executable.as_deref().unwrap_or(&process.command);
    fact(out, "process", &format!("{program} (pid {}, uid {})", process.pid, process.uid))?;
    if !process.command_line.is_empty() {
        fact(out, "command", &process.command_line.join(" "))?;
    }
    for (name, value) in
        [("unit", &process.unit), ("container", &process.container), ("image", &process.image)]
    {
        value.as_ref().map_or(Ok(()), |value| fact(out, name, value))?;
    }
    for identity in &*inquiry.principal.identities {
        fact(out, &identity.issuer, &identity.subject)?;
        for (name, value) in &identity.claims {
            fact(out, name, &value.to_string())?;
        }
    }
    fact(out, "resource", &format!("{} ({})", inquiry.resource, inquiry.protocol))?;
    for term in &inquiry.terms {
        let approval = &term.held.approval;
        let rule = format!("{}: by {approval}; a yes counts for {}", term.held.rule, approval.reach());
        fact(out, "rule", &rule)?;
        if !term.held.what.is_empty() {
            fact(out, "which holds", &term.held.what)?;
        }
    }
    fact(out, "session", &format!("{} (action {})", inquiry.session, inquiry.action))?;
    write!(out, "</dl>")
}

fn write_form(out: &mut String, inquiry: &Inquiry, form: &Form<'_>) -> fmt::Result {
    let Form { token, seal, choices } = form;
    write!(
        out,
        "<h2>Your answer</h2><form method=\"post\" action=\"/approvals/{}\">\
         <input type=\"hidden\" name=\"seal\" value=\"{seal}\"><input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <label>Why (told to whoever asks, and recorded){}\
         <input name=\"reason\" maxlength=\"500\" autocomplete=\"off\"></label>",
        Escaped(Plain(&inquiry.id)),
        if inquiry.needs_reason() { ", required" } else { "" },
    )?;
    for say in *choices {
        write!(out, "<button name=\"answer\" value=\"{}\">{}</button>", say.word(), caption(*say))?;
    }
    write!(out, "</form>")
}

fn caption(say: Say) -> &'static str {
    match say {
        Say::Approve => "Approve",
        Say::Deny => "Deny",
        Say::BreakGlass => "Let it run at once (a review is owed)",
        Say::Review => "I have reviewed it",
        Say::Revoke => "Take the yes back",
    }
}

fn fact(out: &mut String, name: &str, value: &str) -> fmt::Result {
    write!(out, "<dt>{}</dt><dd>{}</dd>", Escaped(Plain(name)), Escaped(Plain(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_others_becomes_markup() {
        let hostile = "</pre><script>alert('x')</script>\u{202e}\"&";
        let shown = message(hostile, hostile, None);
        assert!(!shown.contains("<script>") && !shown.contains('\u{202e}'), "{shown}");
        assert!(shown.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{shown}");
    }
}
