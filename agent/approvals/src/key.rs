//! What an answer counts for, as a number that nothing else has.

use tidegate_gate::{
    Parts, Question,
    policy::{Approval, Held, People, Principal, Process, Scope, Sessions, Sharer},
};

use crate::Inquiry;

/// Who asks on this host: the account, its subjects, and whom issuers say that it is. Not the process, so that an
/// answer that comes after a restart finds whoever asks again.
pub(crate) fn principal(host: &str, principal: &Principal) -> String {
    let mut subjects: Vec<&str> = principal.subjects.iter().map(|subject| &**subject).collect();
    subjects.sort_unstable();
    let mut key = key("principal");
    key.add(host)
        .add(principal.process.account().to_string())
        .list(subjects)
        .count(principal.identities.len());
    for identity in &*principal.identities {
        key.add(&*identity.issuer).add(&*identity.subject);
    }
    hex::encode(key.finish())
}

/// As whom whoever asks on this host counts where each has a share. An account's is its own key.
pub(crate) fn share(host: &str, sharer: &Sharer) -> String {
    match sharer {
        Sharer::Account(uid) => account(host, *uid),
        Sharer::Container(id) => {
            let mut key = key("container");
            key.add(host).add(&**id);
            hex::encode(key.finish())
        }
    }
}

/// The account that asks on this host.
pub(crate) fn account(host: &str, account: u32) -> String {
    let mut key = key("account");
    key.add(host).add(account.to_string());
    hex::encode(key.finish())
}

/// What a yes to one rule counts for: this rule, as long as it holds this on these terms, for this principal on this resource, and as much of
/// the action as the terms say.
pub(crate) fn term(principal: &str, question: &Question, held: &Held) -> String {
    let mut key = key("term");
    key.add(principal).add(&*question.resource).add(&*question.protocol);
    add_held(&mut key, held);
    match held.approval.scope {
        Scope::Action => key.add(question.exact).add(question.shape),
        Scope::Shape => key.add(question.shape),
        Scope::Resource => &mut key,
    };
    hex::encode(key.finish())
}

/// What would run: the very bytes, and what rules see of them now, which definitions decide as well.
pub(crate) fn matter(question: &Question) -> String {
    let mut key = key("matter");
    key.add(question.exact).add(question.shape);
    hex::encode(key.finish())
}

/// What two questions share that are the very same: of the same account and rules, with the same bytes, and shown alike.
pub(crate) fn same(inquiry: &Inquiry) -> String {
    let Inquiry { exact, name, text, particulars, terms, .. } = inquiry;
    let mut key = key("same");
    key.add(inquiry.account_key()).add(exact).add(&**name).add(text).count(particulars.len());
    for (name, value) in particulars {
        key.add(name).add(value);
    }
    key.list(terms.iter().map(|term| &term.key));
    hex::encode(key.finish())
}

/// What an approver is shown of a question; what happens to it later is no part of it. Nor is what is another whenever the
/// same is asked again: process id, session, and until when a token counts.
pub(crate) fn seal(inquiry: &Inquiry) -> String {
    let Inquiry { id, host, asked, name, text, particulars, .. } = inquiry;
    let Inquiry { principal, resource, protocol, policy, terms, .. } = inquiry;
    let mut key = key("seal");
    key.add(&**id).add(&**host).add(asked.to_string()).add(&**name).add(text).count(particulars.len());
    for (name, value) in particulars {
        key.add(name).add(value);
    }
    add_asker(&mut key, principal);
    key.add(&**resource).add(&**protocol).add(&**policy).count(terms.len());
    terms.iter().for_each(|term| add_held(&mut key, &term.held));
    hex::encode(key.finish())
}

fn key(kind: &str) -> Parts {
    let mut key = Parts::new("tidegate-approvals-2");
    key.add(kind);
    key
}

fn add_asker(key: &mut Parts, principal: &Principal) {
    let Process { uid, user, command, executable, executable_sha256, command_line, unit, container, .. } =
        &principal.process;
    key.add(uid.to_string()).maybe(user.as_deref()).add(&**command);
    for part in [executable, executable_sha256, unit, container] {
        key.maybe(part.as_deref());
    }
    key.list(command_line.iter().map(|word| &**word));
    key.list(principal.subjects.iter().map(|subject| &**subject)).count(principal.identities.len());
    for who in &*principal.identities {
        key.add(&*who.issuer).add(&*who.subject).list(who.groups.iter().map(|group| &**group));
        key.count(who.claims.len());
        for (claim, value) in &who.claims {
            key.add(claim).add(value.to_string());
        }
    }
}

/// A rule and its terms. Each by its name: a yes of before counts on when there come to be others that nobody set.
fn add_held(key: &mut Parts, held: &Held) {
    let Held { rule, what, approval } = held;
    let Approval { by, approvers, scope, wait, grant, sessions, reason, break_glass } = &**approval;
    key.add(&**rule).add(&**what);
    add_people(key, "by", Some(by));
    add_people(key, "break-glass", break_glass.as_ref());
    let scope = match scope {
        Scope::Action => "action",
        Scope::Shape => "shape",
        Scope::Resource => "resource",
    };
    let sessions = match sessions {
        Sessions::One => "one",
        Sessions::Any => "any",
    };
    key.add("approvers").add(approvers.to_string()).add("scope").add(scope).add("sessions").add(sessions);
    key.add("wait").add(wait.as_nanos().to_string());
    key.add("grant").maybe(grant.map(|grant| grant.as_nanos().to_string()));
    key.add("reason").add(reason.to_string());
}

fn add_people(key: &mut Parts, name: &str, people: Option<&People>) {
    let Some(People { groups, issuer, users, unix_groups }) = people else { return };
    key.add(name).maybe(issuer.as_deref());
    for names in [groups, users, unix_groups] {
        key.list(names.iter().map(|name| &**name));
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    /// If this fails, yeses of before count no more and what was left standing is asked anew: that is told to people first.
    #[test]
    fn a_yes_of_an_earlier_agent_counts_still() {
        let users = vec!["ann".into(), "bob".into()];
        let approval = Approval {
            by: People { users, ..People::default() },
            approvers: 2,
            scope: Scope::Shape,
            wait: Duration::from_secs(60),
            grant: Some(Duration::from_secs(600)),
            sessions: Sessions::Any,
            reason: false,
            break_glass: None,
        };
        let held =
            Held { rule: "ask".into(), what: "{statement: delete}".into(), approval: Arc::new(approval) };
        let question = Question {
            session: "s".into(),
            principal: Principal { subjects: vec!["ci".into()], ..Principal::default() },
            resource: "shop".into(),
            protocol: "postgres".into(),
            policy: "digest".into(),
            action: 1,
            name: "statement".into(),
            text: "delete".into(),
            particulars: Vec::new(),
            holds: vec![held.clone()],
            exact: [1; 32],
            shape: [2; 32],
        };
        let who = principal("host", &question.principal);
        assert_eq!(
            term(&who, &question, &held),
            "804c4d2e0e0d7d9b4689bf722355a4de19f7224e6a28e0813139c722c00f09b9"
        );
        assert_eq!(matter(&question), "3bc5f8aa1a2e4b9a9a35ff18d236f68a17798fa585b0ca0f62bc0ab235ec1f0c");
    }
}
