//! The terms of holds.

use std::{sync::Arc, time::Duration};

use super::{Loader, texts};
use crate::{
    Approval, Effect, People, Scope, Sessions,
    problem::Position,
    raw::{List, RawApprove, RawReason, RawRule},
    yaml::At,
};

/// How long a question stands where a rule doesn't say.
const WAIT: Duration = Duration::from_secs(10 * 60);
/// The longest that a question may stand or a yes may count.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most people that a rule may ask.
const MOST: u32 = 16;

impl Loader<'_> {
    /// The terms of a rule that holds; a hold without terms, and terms without a hold, are reported.
    pub(super) fn approval(
        &self,
        at: Position,
        raw: &RawRule,
        effect: Option<Effect>,
    ) -> Option<Arc<Approval>> {
        match (effect, &raw.approve) {
            (Some(Effect::Hold), Some(approve)) => self.terms(approve).map(Arc::new),
            // More than one effect is reported already.
            _ if raw.allow.is_some() && raw.hold.is_some() => None,
            (Some(Effect::Hold), None) => {
                self.problems.report_with(
                    raw.hold.as_ref().map_or(at, |hold| hold.at),
                    "nobody may let this run",
                    "say who: `approve: {by: {groups: [dba]}}`; or write `deny:`",
                );
                None
            }
            (_, Some(approve)) => {
                self.problems.report_with(
                    approve.at,
                    "`approve:` counts for what a rule holds, and this one holds nothing",
                    "write `hold:`, or leave it out",
                );
                None
            }
            (_, None) => None,
        }
    }

    fn terms(&self, raw: &At<RawApprove>) -> Option<Approval> {
        let approve = raw.get()?;
        let by = approve.by.get()?;
        let named =
            Named { groups: &by.groups, issuer: &by.issuer, users: &by.users, unix_groups: &by.unix_groups };
        let people = self.people(approve.by.at, &named);
        let scope = approve.scope.as_ref().and_then(At::get).copied().unwrap_or_default();
        if scope != Scope::Action && approve.grant.is_none() {
            self.problems.report_with(
                raw.at,
                "a yes for more than one action needs an end",
                "say how long it counts: `grant: 30m`",
            );
        }
        let sessions = approve.sessions.as_ref().and_then(|raw| Some((raw.at, *raw.get()?)));
        if let (Some((at, Sessions::Any)), None) = (sessions, &approve.grant) {
            self.problems.report_with(
                at,
                "a yes that counts once counts in one session",
                "say how long it counts: `grant: 30m`",
            );
        }
        let approvers = match by.approvers.as_ref().map(|count| (count.at, count.get())) {
            None => 1,
            Some((_, Some(count))) if (1..=MOST).contains(count) => *count,
            Some((at, _)) => {
                self.problems.report(at, format!("from 1 to {MOST} people may be asked"));
                return None;
            }
        };
        let break_glass = approve.break_glass.as_ref().and_then(|people| {
            let named = people.get()?;
            Some(self.people(
                people.at,
                &Named {
                    groups: &named.groups,
                    issuer: &named.issuer,
                    users: &named.users,
                    unix_groups: &named.unix_groups,
                },
            ))
        });
        Some(Approval {
            by: people,
            approvers,
            scope,
            wait: approve.wait.as_ref().map_or(WAIT, |wait| self.span(wait).unwrap_or(WAIT)),
            grant: approve.grant.as_ref().and_then(|grant| self.span(grant)),
            sessions: sessions.map_or_else(Sessions::default, |(_, sessions)| sessions),
            reason: approve.reason.as_ref().and_then(At::get) == Some(&RawReason::Required),
            break_glass,
        })
    }

    /// People; that nobody is among them is reported.
    fn people(&self, at: Position, named: &Named<'_>) -> People {
        let Named { groups, issuer, users, unix_groups } = named;
        let lists = [*groups, *users, *unix_groups];
        if lists
            .into_iter()
            .filter_map(|list| list.as_ref())
            .all(|list| list.get().is_some_and(Vec::is_empty))
        {
            self.problems.report_with(at, "nobody is named", "name `groups:`, `users:` or `unix-groups:`");
        }
        if let (Some(issuer), None) = (issuer, groups) {
            self.problems.report_with(
                issuer.at,
                "an issuer without groups names nobody",
                "name `groups:` of it, or leave it out",
            );
        }
        People {
            groups: texts(groups.as_ref()),
            issuer: groups
                .as_ref()
                .filter(|groups| groups.get().is_some_and(|groups| !groups.is_empty()))
                .and_then(|groups| self.vouches(groups.at, issuer.as_ref())),
            users: texts(users.as_ref()),
            unix_groups: texts(unix_groups.as_ref()),
        }
    }

    /// The issuer that vouches for groups: the one that is named, or the bundle's only one.
    fn vouches(&self, groups: Position, named: Option<&At<String>>) -> Option<Arc<str>> {
        if let Some(named) = named {
            let name = named.get()?;
            return self.declared("issuer", named.at, name, &self.issuers).then(|| name.as_str().into());
        }
        let mut issuers = self.issuers.keys();
        match (issuers.next(), issuers.next()) {
            (Some(only), None) => return Some(only.as_str().into()),
            (None, _) => self.problems.report_with(
                groups,
                "no issuer vouches for groups",
                "declare one under `issuers:`, or name `unix-groups:`",
            ),
            (Some(_), Some(_)) => self.problems.report_with(
                groups,
                "several issuers know groups",
                "say whose count: `issuer: NAME`",
            ),
        }
        None
    }

    fn span(&self, raw: &At<String>) -> Option<Duration> {
        self.duration(raw, LONGEST)
    }
}

/// How people are written, wherever they are.
struct Named<'a> {
    groups: &'a Option<At<List<String>>>,
    issuer: &'a Option<At<String>>,
    users: &'a Option<At<List<String>>>,
    unix_groups: &'a Option<At<List<String>>>,
}
