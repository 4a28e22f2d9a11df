//! What a question is answered with.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::{Lookup, LookupError, Question, budget::Budgets};

/// Lookups at one time.
const AT_ONCE: usize = 256;
/// Of one user: a server that doesn't answer keeps them for seconds.
const AT_ONCE_OF_ONE: usize = 32;

/// What the bundle says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It isn't to be answered.
    Unknown,
    /// It is written out.
    Named,
    /// A wildcard stands for it.
    Wildcard,
}

/// The names of the bundle in force.
pub trait Directory: Send + Sync {
    /// What it says of a name, given in lower case and without a final dot.
    fn standing(&self, name: &str) -> Standing;

    /// Takes note of a name's addresses before anybody is told: what the bundle lets processes reach by this name can be
    /// reached when this returns. Answers the addresses that may be told, or why none may.
    fn learn(
        &self,
        name: &str,
        addresses: Vec<IpAddr>,
    ) -> impl Future<Output = Result<Vec<IpAddr>, String>> + Send;
}

/// What a question is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, perhaps none.
    Addresses {
        /// They.
        addresses: Vec<IpAddr>,
        /// How long they may be kept.
        ttl: Duration,
    },
    /// The name doesn't exist.
    NoSuchName,
    /// It could not be found out; why, for the agent's own records.
    Failed(String),
    /// It isn't answered.
    Refused(Refusal),
}

/// Why a question is refused. The text goes to the asker.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The name is not to be answered.
    #[error("the bundle knows no such name: it is no resource's, no pass's and not under dns: allow")]
    Unknown,
    /// Only addresses are.
    #[error("only addresses are answered: A and AAAA")]
    Kind,
    /// Too much is asked in a short time.
    #[error("this user asks too many questions: wait a second")]
    TooMany,
    /// Too many names were tried.
    #[error("this user has asked for too many different names under a wildcard: wait an hour")]
    TooManyNames,
    /// The name has addresses that it may not have.
    #[error("{0}")]
    Addresses(String),
}

/// Decides and answers, within what each user may ask; `K` tells users apart.
#[derive(Debug)]
pub struct Resolver<K: Clone + Eq + Hash> {
    budgets: Mutex<Budgets<K>>,
    lookups: Semaphore,
    /// How many each user waits for.
    waiting: Mutex<HashMap<K, usize>>,
}

/// A lookup that a user waits for.
struct Wait<'a, K: Clone + Eq + Hash> {
    resolver: &'a Resolver<K>,
    user: K,
}

impl<K: Clone + Eq + Hash> Drop for Wait<'_, K> {
    fn drop(&mut self) {
        let mut waiting = self.resolver.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = waiting.entry(self.user.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl<K: Clone + Eq + Hash> Default for Resolver<K> {
    fn default() -> Self {
        Self { budgets: Mutex::default(), lookups: Semaphore::new(AT_ONCE), waiting: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash> Resolver<K> {
    /// Answers a question of a user. Nothing is looked up for a name that the bundle doesn't know.
    pub async fn answer(
        &self,
        user: &K,
        question: &Question,
        directory: &impl Directory,
        upstream: &impl Lookup,
    ) -> Answer {
        let v6 = match self.admit(user, question, directory.standing(question.name())) {
            Ok(Some(v6)) => v6,
            Ok(None) => return nothing(),
            Err(refusal) => return Answer::Refused(refusal),
        };
        let Some(_wait) = self.wait(user) else { return Answer::Refused(Refusal::TooMany) };
        let Ok(_turn) = self.lookups.acquire().await else { return Answer::Failed("stopping".into()) };
        let found = match upstream.lookup(question.name(), v6).await {
            Ok(found) => found,
            Err(LookupError::NoSuchName) => return Answer::NoSuchName,
            Err(LookupError::Failed(why)) => return Answer::Failed(why),
        };
        match directory.learn(question.name(), found.addresses).await {
            Ok(addresses) => Answer::Addresses { addresses, ttl: found.ttl },
            Err(why) => Answer::Refused(Refusal::Addresses(why)),
        }
    }

    /// One more lookup for a user; none if as many wait as may.
    fn wait(&self, user: &K) -> Option<Wait<'_, K>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(user.clone()).or_default();
        (*count < AT_ONCE_OF_ONE).then(|| {
            *count += 1;
            Wait { resolver: self, user: user.clone() }
        })
    }

    /// Whether, and for which family, to look the name up; none to answer that there is nothing.
    fn admit(&self, user: &K, question: &Question, standing: Standing) -> Result<Option<bool>, Refusal> {
        let now = Instant::now();
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.question(user, now)?;
        // A label that has a dot or another byte that no host's name has is written with a backslash: under it a name passes
        // for another.
        let standing = if question.name().contains('\\') { Standing::Unknown } else { standing };
        match standing {
            Standing::Unknown => return Err(Refusal::Unknown),
            Standing::Wildcard => budgets.name(user, question.name(), now)?,
            Standing::Named => {}
        }
        match question.kind() {
            RecordType::A => Ok(Some(false)),
            RecordType::AAAA => Ok(Some(true)),
            // Browsers and others ask for these beside addresses, and wait for an answer: that there are none.
            RecordType::HTTPS | RecordType::SVCB => Ok(None),
            _ => Err(Refusal::Kind),
        }
    }
}

fn nothing() -> Answer {
    Answer::Addresses { addresses: Vec::new(), ttl: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Waker},
    };

    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::Name,
    };

    use super::*;
    use crate::Found;

    struct Names;

    impl Directory for Names {
        fn standing(&self, name: &str) -> Standing {
            match name {
                "db.internal" | "rebound.internal" => Standing::Named,
                name if name.ends_with(".wild") => Standing::Wildcard,
                _ => Standing::Unknown,
            }
        }

        async fn learn(&self, name: &str, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
            if name == "rebound.internal" { Err("not there".into()) } else { Ok(addresses) }
        }
    }

    #[derive(Default)]
    struct Servers(AtomicUsize);

    impl Lookup for Servers {
        async fn lookup(&self, name: &str, v6: bool) -> Result<Found, LookupError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if name == "gone.wild" {
                return Err(LookupError::NoSuchName);
            }
            let address = if v6 { "2001:db8::1" } else { "192.0.2.1" };
            Ok(Found { addresses: vec![address.parse().unwrap()], ttl: Duration::from_secs(9) })
        }
    }

    fn question(name: &str, kind: RecordType) -> Question {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        Question::read(&message.to_vec().unwrap()).unwrap()
    }

    async fn answer(resolver: &Resolver<u32>, servers: &Servers, name: &str, kind: RecordType) -> Answer {
        resolver.answer(&7, &question(name, kind), &Names, servers).await
    }

    #[tokio::test]
    async fn a_name_of_the_bundle_is_answered_with_the_family_asked_for() {
        let (resolver, servers) = (Resolver::default(), Servers::default());
        for (kind, address) in [(RecordType::A, "192.0.2.1"), (RecordType::AAAA, "2001:db8::1")] {
            let expected =
                Answer::Addresses { addresses: vec![address.parse().unwrap()], ttl: Duration::from_secs(9) };
            assert_eq!(answer(&resolver, &servers, "DB.internal.", kind).await, expected);
        }
        assert_eq!(answer(&resolver, &servers, "gone.wild.", RecordType::A).await, Answer::NoSuchName);
    }

    #[tokio::test]
    async fn nothing_of_what_is_refused_is_looked_up() {
        let (resolver, servers) = (Resolver::default(), Servers::default());
        for (name, kind, refusal) in [
            ("secret-data.attacker.example.", RecordType::A, Refusal::Unknown),
            ("db.internal.attacker.example.", RecordType::A, Refusal::Unknown),
            (".", RecordType::A, Refusal::Unknown),
            ("db.internal.", RecordType::TXT, Refusal::Kind),
            ("db.internal.", RecordType::ANY, Refusal::Kind),
            ("db.internal.", RecordType::NULL, Refusal::Kind),
        ] {
            assert_eq!(answer(&resolver, &servers, name, kind).await, Answer::Refused(refusal), "{name}");
        }
        assert_eq!(answer(&resolver, &servers, "db.internal.", RecordType::HTTPS).await, nothing());
        assert_eq!(servers.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_label_with_a_dot_in_it_passes_for_no_other_name() {
        let (resolver, servers) = (Resolver::default(), Servers::default());
        let told = answer(&resolver, &servers, "x\\.y.wild.", RecordType::A).await;
        assert_eq!(told, Answer::Refused(Refusal::Unknown));
        assert_eq!(servers.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn addresses_that_the_directory_does_not_take_are_not_told() {
        let (resolver, servers) = (Resolver::default(), Servers::default());
        let told = answer(&resolver, &servers, "rebound.internal.", RecordType::A).await;
        assert_eq!(told, Answer::Refused(Refusal::Addresses("not there".into())));
    }

    /// Answers nobody.
    struct Silent;

    impl Lookup for Silent {
        async fn lookup(&self, _name: &str, _v6: bool) -> Result<Found, LookupError> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_one_user_is_no_matter_to_the_others() {
        let resolver = Resolver::default();
        let asked = question("db.internal.", RecordType::A);
        let mut waiting: Vec<_> =
            (0..AT_ONCE_OF_ONE).map(|_| Box::pin(resolver.answer(&7, &asked, &Names, &Silent))).collect();
        for lookup in &mut waiting {
            assert!(lookup.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let servers = Servers::default();
        let told = resolver.answer(&7, &asked, &Names, &servers).await;
        assert_eq!(told, Answer::Refused(Refusal::TooMany));
        assert!(matches!(resolver.answer(&8, &asked, &Names, &servers).await, Answer::Addresses { .. }));
        drop(waiting);
        assert!(matches!(resolver.answer(&7, &asked, &Names, &servers).await, Answer::Addresses { .. }));
    }

    #[tokio::test]
    async fn a_wildcard_carries_no_stream_of_names() {
        let (resolver, servers) = (Resolver::default(), Servers::default());
        let mut refused = 0;
        for number in 0..400 {
            let name = format!("{number}.wild.");
            let told = answer(&resolver, &servers, &name, RecordType::A).await;
            refused += usize::from(matches!(told, Answer::Refused(_)));
        }
        assert!(refused >= 100, "{refused}");
        assert!(servers.0.load(Ordering::Relaxed) <= 256);
    }
}
