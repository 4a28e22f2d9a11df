//! What was asked and answered, in a record for each process: a new thing once, the same again by its count.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tidegate_dns::{Answer, Question as Asked};
use tidegate_gate::{Entry, Record, RecordError, Records};
use tidegate_kernel::Captured;
use tidegate_policy::{Effect, Principal, Sharer};

use super::Askers;

/// Accounts that are open at one time; the one that was quiet the longest is closed for a new one.
const OPEN: usize = 1024;
/// An account is closed when its process was quiet for this long.
const QUIET: Duration = Duration::from_secs(60);
/// Or this long after it began.
const WHOLE: Duration = Duration::from_secs(600);
/// Refusals of one account that are written out; more are counted.
const REFUSALS: usize = 256;
/// How often accounts are looked after.
const ROUND: Duration = Duration::from_secs(10);
/// The name that stands for resource and protocol.
const DNS: &str = "dns";

/// Who asks.
pub(super) enum Asker {
    /// A process that sent a datagram.
    Captured {
        /// It.
        asker: Box<Captured>,
        /// As whom it counts.
        sharer: Sharer,
        /// Who knows more of it.
        askers: Arc<dyn Askers>,
    },
    /// A process that made a connection to this server.
    Known(Arc<Principal>, SocketAddr),
}

impl Asker {
    /// As whom it counts.
    pub(super) fn sharer(&self) -> Sharer {
        match self {
            Self::Captured { sharer, .. } => sharer.clone(),
            Self::Known(principal, _) => principal.process.sharer(),
        }
    }

    /// Has its account's name found out, for when it is described.
    pub(super) fn learn_name(&self) {
        if let Self::Captured { asker, askers, .. } = self {
            askers.learn_name(asker.account());
        }
    }

    /// What tells it from other processes, and from itself over the other transport.
    fn key(&self) -> (bool, u32, u64) {
        match self {
            Self::Captured { asker, .. } => (true, asker.pid, asker.started),
            Self::Known(principal, _) => {
                (false, principal.process.pid, principal.process.start_time.unwrap_or_default())
            }
        }
    }

    /// Everything that is known of it, and the server that it meant to ask.
    fn describe(self) -> (Arc<Principal>, SocketAddr) {
        match self {
            Self::Captured { asker, askers, .. } => {
                let server = asker.destination;
                (Arc::new(askers.describe(*asker)), server)
            }
            Self::Known(principal, server) => (principal, server),
        }
    }
}

/// A question and what became of it, in words.
pub(super) struct Question {
    text: String,
    refused: Option<String>,
    answer: String,
    policy: Arc<str>,
}

impl Question {
    /// In words.
    pub(super) fn new(asked: &Asked, answer: &Answer, policy: Arc<str>) -> Self {
        let (refused, answer) = match answer {
            Answer::Addresses { addresses, .. } if addresses.is_empty() => (None, "no address".into()),
            Answer::Addresses { addresses, .. } => {
                let mut addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                addresses.sort();
                (None, addresses.join(", "))
            }
            Answer::NoSuchName => (None, "no such name".into()),
            Answer::Failed(why) => (None, format!("not found out: {why}")),
            Answer::Refused(refusal) => (Some(refusal.to_string()), String::new()),
        };
        Self { text: format!("{} {}", asked.kind(), asked.name()), refused, answer, policy }
    }
}

/// The accounts.
pub(super) struct Journal {
    records: Arc<dyn Records>,
    /// What this host's kernel lets the agent enforce.
    tier: Arc<str>,
    accounts: Mutex<BTreeMap<(bool, u32, u64), Account>>,
    /// Taken by process id while an account is opened: a process asks for both families at once.
    opening: [Mutex<()>; 16],
}

struct Account {
    record: Box<dyn Record>,
    began: Instant,
    last: Instant,
    actions: u64,
    refusals: usize,
    said: BTreeSet<(String, String)>,
    /// Questions that were not written: said before, or too many.
    counted: u64,
}

impl Journal {
    pub(super) fn new(records: Arc<dyn Records>, tier: Arc<str>) -> Arc<Self> {
        Arc::new(Self { records, tier, accounts: Mutex::default(), opening: Default::default() })
    }

    /// Writes down what was asked, before it is answered.
    pub(super) fn note(&self, asker: Asker, question: Question) -> Result<(), RecordError> {
        let (key, now) = (asker.key(), Instant::now());
        let _opening = self.opening.get(key.1 as usize % self.opening.len()).map(lock);
        if let Some(account) = lock(&self.accounts).get_mut(&key).filter(|account| !account.is_over(now)) {
            return account.note(question, now);
        }
        // Without the lock: describing a process reads files.
        let (principal, server) = asker.describe();
        let record = self.records.open(Entry::Open {
            principal: Cow::Borrowed(&principal),
            destination: server,
            resource: DNS.into(),
            protocol: DNS.into(),
            policy: Cow::Borrowed(&question.policy),
            tier: Cow::Borrowed(&self.tier),
        })?;
        let mut account = Account::new(record, now);
        let noted = account.note(question, now);
        let mut accounts = lock(&self.accounts);
        let mut ended: Vec<Account> = accounts.insert(key, account).into_iter().collect();
        if accounts.len() > OPEN
            && let Some(quietest) =
                accounts.iter().min_by_key(|(_, account)| account.last).map(|(key, _)| *key)
        {
            ended.extend(accounts.remove(&quietest));
        }
        drop(accounts);
        ended.into_iter().for_each(Account::close);
        noted
    }

    /// Closes accounts that are over, until dropped.
    pub(super) async fn tidy(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(ROUND).await;
            let journal = self.clone();
            // A panic there was logged there.
            let _ = tokio::task::spawn_blocking(move || journal.close(Instant::now())).await;
        }
    }

    fn close(&self, now: Instant) {
        let mut accounts = lock(&self.accounts);
        let over: Vec<_> =
            accounts.iter().filter(|(_, account)| account.is_over(now)).map(|(key, _)| *key).collect();
        let over: Vec<Account> = over.iter().filter_map(|key| accounts.remove(key)).collect();
        drop(accounts);
        over.into_iter().for_each(Account::close);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let accounts = std::mem::take(&mut *lock(&self.accounts));
        accounts.into_values().for_each(Account::close);
    }
}

impl Account {
    fn new(record: Box<dyn Record>, now: Instant) -> Self {
        Self { record, began: now, last: now, actions: 0, refusals: 0, said: BTreeSet::new(), counted: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= QUIET
            || now.saturating_duration_since(self.began) >= WHOLE
    }

    fn note(&mut self, question: Question, now: Instant) -> Result<(), RecordError> {
        self.last = now;
        let Question { text, refused, answer, .. } = question;
        let too_many = refused.is_some() && self.refusals >= REFUSALS;
        if too_many || !self.said.insert((text.clone(), answer.clone())) {
            self.counted += 1;
            return Ok(());
        }
        self.actions += 1;
        self.refusals += usize::from(refused.is_some());
        let allowed = refused.is_none();
        let action = Entry::Action {
            id: self.actions,
            action: "question".into(),
            text: Cow::Borrowed(&text),
            decision: if allowed { Effect::Allow } else { Effect::Deny },
            rule: None,
            reason: refused.map(Cow::Owned),
            policy: None,
        };
        if allowed {
            self.record.note(&action);
            let detail = format!("{text}: {answer}");
            return self.record.write(&Entry::Event { event: "answer".into(), detail: detail.into() });
        }
        self.record.write(&action)
    }

    fn close(mut self) {
        if self.counted > 0 {
            let detail = format!("{} more questions, asked before or too many to write out", self.counted);
            self.record.note(&Entry::Event { event: "questions-counted".into(), detail: detail.into() });
        }
        self.record.close("no more questions");
    }
}

/// Each account is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
