//! What an answer counts for, as a number that nothing else has.

use aws_lc_rs::digest;
use tidegate_gate::{
    Question,
    policy::{Held, Principal, Scope},
};

use crate::Inquiry;

/// Who asks on this host: the account, its subjects, and whom issuers say that it is. Not the process, so that an
/// answer that comes after a restart finds whoever asks again.
pub(crate) fn principal(host: &str, principal: &Principal) -> String {
    let mut subjects: Vec<&str> = principal.subjects.iter().map(|subject| &**subject).collect();
    subjects.sort_unstable();
    let mut key = Key::new("principal");
    key.add(host).add(principal.process.account().to_string()).add(subjects.len().to_string());
    for subject in subjects {
        key.add(subject);
    }
    for identity in &*principal.identities {
        key.add(&*identity.issuer).add(&*identity.subject);
    }
    key.finish()
}

/// The account that asks on this host, for what each account has a share of.
pub(crate) fn account(host: &str, account: u32) -> String {
    let mut key = Key::new("account");
    key.add(host).add(account.to_string());
    key.finish()
}

/// What a yes to one rule counts for: this rule, as long as it holds this on these terms, for this principal on this resource, and as much of
/// the action as the terms say.
pub(crate) fn term(principal: &str, question: &Question, held: &Held) -> String {
    let mut key = Key::new("term");
    key.add(principal).add(&*question.resource).add(&*question.protocol).add(&*held.rule).add(&*held.what);
    // Terms are plain data: they can be written.
    key.add(serde_json::to_string(&held.approval).unwrap_or_default());
    match held.approval.scope {
        Scope::Action => key.add(question.exact).add(question.shape),
        Scope::Shape => key.add(question.shape),
        Scope::Resource => &mut key,
    };
    key.finish()
}

/// What would run: the very bytes, and what rules see of them now, which definitions decide as well.
pub(crate) fn matter(question: &Question) -> String {
    let mut key = Key::new("matter");
    key.add(question.exact).add(question.shape);
    key.finish()
}

/// What two questions share that are the very same: of the same account and rules, with the same bytes, and shown alike.
pub(crate) fn same(inquiry: &Inquiry) -> String {
    let Inquiry { exact, name, text, particulars, terms, .. } = inquiry;
    let mut key = Key::new("same");
    key.add(inquiry.account_key()).add(exact).add(&**name).add(text);
    for (name, value) in particulars {
        key.add(name).add(value);
    }
    key.add("terms");
    for term in terms {
        key.add(&term.key);
    }
    key.finish()
}

/// What an approver is shown of a question; what happens to it later is no part of it. Nor is what is another whenever the
/// same is asked again: process id, session, and until when a token counts.
pub(crate) fn seal(inquiry: &Inquiry) -> String {
    let Inquiry { asked, name, text, particulars, principal, resource, protocol, policy, terms, .. } =
        inquiry;
    let process = &principal.process;
    let program = (&process.command, &process.executable, &process.executable_sha256, &process.command_line);
    let place = (&process.unit, &process.container);
    let asker = (process.uid, &process.user, program, place, &principal.subjects);
    let vouched =
        principal.identities.iter().map(|who| (&who.issuer, &who.subject, &who.groups, &who.claims));
    let vouched: Vec<_> = vouched.collect();
    let terms: Vec<&Held> = terms.iter().map(|term| &term.held).collect();
    // All of it is plain data: it can be written.
    let shown = serde_json::to_vec(&(
        (asked, name, text, particulars),
        (asker, vouched),
        (resource, protocol, policy, terms),
    ));
    let mut key = Key::new("seal");
    key.add(&*inquiry.id).add(&*inquiry.host).add(shown.unwrap_or_default());
    key.finish()
}

struct Key(digest::Context);

impl Key {
    fn new(kind: &str) -> Self {
        let mut key = Self(digest::Context::new(&digest::SHA256));
        key.add("tidegate-approvals-1").add(kind);
        key
    }

    /// Each part after its length, so that no two lists of parts are the same bytes.
    fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    fn finish(self) -> String {
        hex::encode(self.0.finish())
    }
}
