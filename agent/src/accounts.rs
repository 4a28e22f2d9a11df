//! What accounts are called, as far as the host tells it in time.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::{Uid, User};
use tidegate_gate::Turns;
use tokio::{task::spawn_blocking, time::timeout};

/// The host's own accounts (passwd(5)), for which no service is asked.
const TABLE: &str = "/etc/passwd";
/// How many names the name service is asked for at a time: of one account, and of all. Fewer than a lane has threads for.
const AT_ONCE: (usize, usize) = (1, 2);
/// How long a connection waits for a name. Without it nobody is shut out, but who is known by a login may be whoever asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a name is remembered.
const KEPT: Duration = Duration::from_secs(60);
/// How long an account that could not be told isn't asked for again.
const PAUSE: Duration = Duration::from_secs(10);

/// What an account is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Name {
    /// This.
    Is(Arc<str>),
    /// The host knows no such account.
    None,
    /// It could not be told, or not in time.
    #[default]
    Untold,
}

type Ask = Box<dyn Fn(u32) -> Name + Send + Sync>;

/// Asks what accounts are called, so that a name service that does not answer stops nobody but who waits for it, and those no
/// longer than a moment.
#[derive(Clone)]
pub(crate) struct AccountNames(Arc<Inner>);

struct Inner {
    turns: Turns,
    patience: Duration,
    known: Mutex<HashMap<u32, (Name, Instant)>>,
    local: Ask,
    service: Ask,
}

impl Default for AccountNames {
    fn default() -> Self {
        let local = |account| local(&fs::read_to_string(TABLE).unwrap_or_default(), account);
        Self::of_host(PATIENCE, Box::new(local), Box::new(service))
    }
}

impl AccountNames {
    fn of_host(patience: Duration, local: Ask, service: Ask) -> Self {
        let (turns, known) = (Turns::new(AT_ONCE.0, AT_ONCE.1), Mutex::default());
        Self(Arc::new(Inner { turns, patience, known, local, service }))
    }

    /// What this account is called.
    pub(crate) async fn of(&self, account: u32) -> Name {
        if let Some(name) = self.known(account) {
            return name;
        }
        if let Ok(name) = timeout(self.0.patience, self.ask(account)).await {
            return name;
        }
        self.keep(account, Name::Untold);
        Name::Untold
    }

    /// The same, of what is remembered.
    pub(crate) fn known(&self, account: u32) -> Option<Name> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&account).filter(|(_, until)| Instant::now() < *until).map(|(name, _)| name.clone())
    }

    async fn ask(&self, account: u32) -> Name {
        let names = self.clone();
        let name = spawn_blocking(move || (names.0.local)(account)).await.unwrap_or_default();
        if name != Name::Untold {
            self.keep(account, name.clone());
            return name;
        }
        let turn = self.0.turns.of(account).await;
        // Who had the turn before may have asked for it.
        if let Some(name) = self.known(account) {
            return name;
        }
        let names = self.clone();
        let asked = spawn_blocking(move || {
            let name = (names.0.service)(account);
            names.keep(account, name.clone());
            drop(turn);
            name
        });
        asked.await.unwrap_or_default()
    }

    /// Whoever waited in vain forgets no name that came meanwhile.
    fn keep(&self, account: u32, name: Name) {
        let now = Instant::now();
        let until = now + if name == Name::Untold { PAUSE } else { KEPT };
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, until)| now < *until);
        if name != Name::Untold || !known.contains_key(&account) {
            known.insert(account, (name, until));
        }
    }
}

fn service(account: u32) -> Name {
    match User::from_uid(Uid::from_raw(account)) {
        Ok(Some(user)) => Name::Is(user.name.into()),
        Ok(None) => Name::None,
        Err(_) => Name::Untold,
    }
}

/// What this table calls it; untold if it doesn't.
fn local(table: &str, account: u32) -> Name {
    let names = table.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
        (fields.nth(1)?.parse() == Ok(account)).then_some(name)
    });
    { names }.next().map_or(Name::Untold, |name| Name::Is(name.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    fn is(name: &str) -> Name {
        Name::Is(name.into())
    }

    /// Names of a host whose name service answers when the sender is dropped, how many ask it, and how many did.
    fn stuck(patience: Duration) -> (AccountNames, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (until, told) = mpsc::channel();
        let (told, asked) = (Mutex::new(told), Arc::new(AtomicUsize::new(0)));
        let counted = asked.clone();
        let service = move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            told.lock().unwrap().recv().err().map_or(Name::Untold, |_| is("late"))
        };
        let local = |account| local("root:x:0:0::/root:\nann:x:1001:1001::/:", account);
        (AccountNames::of_host(patience, Box::new(local), Box::new(service)), until, asked)
    }

    #[test]
    fn an_account_is_called_as_the_host_s_table_says() {
        let table = "# root:x:1:\nroot:x:0:0::/root:/bin/sh\nci:x:61001:1::/:\nshort:x\n+::::::\n";
        assert_eq!((local(table, 0), local(table, 61_001)), (is("root"), is("ci")));
        assert_eq!((local(table, 1), local(table, 7)), (Name::Untold, Name::Untold));
    }

    #[tokio::test]
    async fn a_name_service_that_does_not_answer_holds_up_no_account_of_the_host_and_takes_two_threads() {
        let (names, until, asked) = stuck(Duration::from_millis(20));
        let waiting: Vec<_> = (2000..2100)
            .flat_map(|account| [account; 3])
            .map(|account| {
                let names = names.clone();
                tokio::spawn(async move { names.of(account).await })
            })
            .collect();
        assert_eq!(names.of(1001).await, is("ann"));
        for one in waiting {
            assert_eq!(one.await.unwrap(), Name::Untold);
        }
        assert!(asked.load(Ordering::Relaxed) <= 2);
        // For a while nobody waits for it again.
        assert_eq!(names.known(2000), Some(Name::Untold));
        drop(until);
    }

    #[tokio::test]
    async fn a_name_is_asked_for_once_by_all_who_wait_for_it() {
        let (names, until, asked) = stuck(Duration::from_secs(20));
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let names = names.clone();
                tokio::spawn(async move { names.of(2000).await })
            })
            .collect();
        drop(until);
        for one in waiting {
            assert_eq!(one.await.unwrap(), is("late"));
        }
        assert_eq!((asked.load(Ordering::Relaxed), names.of(2000).await), (1, is("late")));
    }
}
