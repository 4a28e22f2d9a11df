//! Where a process stands among the others.

use super::{Host, ProcessId, Seen};

/// Ancestors that are looked at, at most.
const DEEPEST: usize = 64;

/// An account's part of a login session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Login {
    /// As the kernel's audit counts them.
    pub(crate) session: u32,
    pub(crate) uid: u32,
}

/// Where a process stands among the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// It and its ancestors, nearest first, without the host's first process.
    pub(crate) lineage: Vec<Seen>,
    /// The leader of its session and that one's ancestors, if they are not among its own any more: it descends from
    /// them, since nobody joins a session that exists.
    pub(crate) by_session: Vec<Seen>,
    /// Its login session, and its account in it.
    pub(crate) login: Option<Login>,
}

impl Place {
    /// Finds it; nothing is known of a process that is gone.
    pub(crate) fn of(host: &dyn Host, id: ProcessId) -> Self {
        let lineage = lineage(host, id);
        let Some(own) = lineage.first().copied() else { return Self::default() };
        let mut by_session = Vec::new();
        if !lineage.iter().any(|seen| seen.id.pid == own.session)
            && let Some(leader) = host.seen(own.session).filter(|leader| leader.session == leader.id.pid)
        {
            by_session = self::lineage(host, leader.id);
            // As long as it is in the session, the leader's id is nobody else's.
            if host.seen(own.id.pid).is_none_or(|again| again.id != own.id || again.session != own.session) {
                by_session.clear();
            }
        }
        let login = host.login(own.id).and_then(|session| Some(Login { session, uid: host.uid(own.id)? }));
        Self { lineage, by_session, login }
    }

    /// The leader of its session, and the process that began that if it still lives.
    pub(crate) fn leader(&self, session: u32) -> Option<(Seen, Option<ProcessId>)> {
        [&self.lineage, &self.by_session].into_iter().find_map(|line| {
            let at = line.iter().position(|seen| seen.id.pid == session)?;
            let leader = line.get(at).filter(|seen| seen.session == session)?;
            Some((*leader, line.get(at + 1).map(|seen| seen.id)))
        })
    }

    /// Everything that it descends from, nearest first, itself included.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ProcessId> {
        self.lineage.iter().chain(&self.by_session).map(|seen| seen.id)
    }
}

fn lineage(host: &dyn Host, id: ProcessId) -> Vec<Seen> {
    let mut lineage = Vec::new();
    let mut next = host.seen(id.pid).filter(|seen| seen.id == id);
    while let Some(seen) = next {
        lineage.push(seen);
        if seen.parent <= 1 || lineage.len() == DEEPEST {
            break;
        }
        let parent = host.seen(seen.parent);
        // A parent that ended in between has left its child to another, and its id to anybody.
        next = parent.filter(|_| host.seen(seen.id.pid) == Some(seen));
    }
    lineage
}
