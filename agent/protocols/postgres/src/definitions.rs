//! Definitions that change while others' statements are on their way.
//!
//! The server looks up what a statement names one by one, when its turn comes, and may wait for a lock at each: until it has read
//! all of it, a statement counts by the definitions that it was decided by. So whoever changes definitions says so and waits
//! for the statements that were begun before; those begun afterwards know that they are in doubt.
//!
//! Time is counted in eras. A session whose statements are covered holds the era that it began them in; a change begins
//! a new era, and is safe once nobody holds an older one.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::Context,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{sync::Notify, time::timeout};

/// How long others doubt because of a change that is not sent yet. Then it waits without their doubt again.
const DOUBT: Duration = Duration::from_secs(1);

/// Who changes the definitions of a database, and who has statements that the server has yet to read.
#[derive(Debug)]
pub(crate) struct Definitions {
    /// Sessions that change definitions, in a transaction that has not ended, or are about to.
    changing: AtomicUsize,
    /// How many times they have changed.
    changes: AtomicU64,
    /// How many times relations that nobody named may have lost columns by it.
    losses: AtomicU64,
    /// From 1 on.
    era: AtomicU64,
    /// Somebody waits for all eras before this one.
    wanted: AtomicU64,
    /// An era that somebody waits for is no longer held by a session.
    released: Notify,
    /// A change has ended.
    settled: Notify,
    sessions: Mutex<Vec<Weak<Place>>>,
}

impl Default for Definitions {
    fn default() -> Self {
        Self {
            changing: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            era: AtomicU64::new(1),
            wanted: AtomicU64::new(0),
            released: Notify::new(),
            settled: Notify::new(),
            sessions: Mutex::default(),
        }
    }
}

/// One session among those of the database.
struct Place {
    session: Arc<str>,
    /// The era that it holds; 0 for none.
    era: AtomicU64,
    /// Told when somebody waits for it.
    wanted: AtomicWaker,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("session", &self.session)
            .field("era", &self.era)
            .finish_non_exhaustive()
    }
}

impl Definitions {
    /// Changes whenever what was known of the definitions no longer counts.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Definitions have changed.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, SeqCst);
    }

    /// The sessions whose statements whoever waits now waits for.
    pub(crate) fn holders(&self) -> Vec<Arc<str>> {
        let held = self.held_before(self.wanted.load(SeqCst));
        held.iter().map(|place| place.session.clone()).collect()
    }

    /// Changes whenever a temporary relation of any session may have lost columns.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(SeqCst)
    }

    /// A statement is sent by which relations may lose columns that it doesn't name.
    pub(crate) fn lose(&self) {
        self.losses.fetch_add(1, SeqCst);
    }

    /// Resolves when nobody changes them.
    pub(crate) async fn are_settled(&self) {
        loop {
            let mut settled = pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.changing.load(SeqCst) == 0 {
                return;
            }
            settled.await;
        }
    }

    fn next_era(&self) -> u64 {
        self.era.fetch_add(1, SeqCst) + 1
    }

    fn held_before(&self, era: u64) -> Vec<Arc<Place>> {
        let sessions = self.sessions();
        let alive = sessions.iter().filter_map(Weak::upgrade);
        alive.filter(|place| (1..era).contains(&place.era.load(SeqCst))).collect()
    }

    /// Resolves when no session holds an older era.
    async fn are_read_before(&self, era: u64) {
        self.wanted.fetch_max(era, SeqCst);
        loop {
            let mut released = pin!(self.released.notified());
            released.as_mut().enable();
            let held = self.held_before(era);
            if held.is_empty() {
                return;
            }
            for place in held {
                place.wanted.wake();
            }
            released.await;
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<Weak<Place>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session's statements count by, from before the first of them is understood until the server has read them all.
#[derive(Debug)]
pub(crate) struct Reader {
    definitions: Arc<Definitions>,
    place: Arc<Place>,
    standing: Standing,
}

/// How the statements stand to the definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// There are none that the server has yet to read.
    Read,
    /// Definitions don't change until they are read.
    Covered,
    /// Nobody can say by which definitions they will be read. They are decided as such.
    InDoubt,
}

impl Reader {
    /// A place for this session.
    pub(crate) fn new(definitions: Arc<Definitions>, session: Arc<str>) -> Self {
        let place = Arc::new(Place { session, era: AtomicU64::new(0), wanted: AtomicWaker::new() });
        let mut sessions = definitions.sessions();
        if sessions.len() == sessions.capacity() {
            sessions.retain(|place| place.strong_count() > 0);
        }
        sessions.push(Arc::downgrade(&place));
        drop(sessions);
        Self { definitions, place, standing: Standing::Read }
    }

    /// The server is about to be sent a statement: to be called before that is understood. What is covered stays so, and what
    /// is in doubt was decided as such. `own` is the session's own change, if it has not been sent yet.
    pub(crate) fn begin(&mut self, own: Option<&Changing>) {
        if self.standing == Standing::Covered {
            return;
        }
        // In this order: whoever has begun to change by now is seen here, and whoever has not will wait for this era.
        self.place.era.store(self.definitions.era.load(SeqCst), SeqCst);
        self.standing = Standing::Covered;
        let own = own.is_some_and(|own| own.stage != Stage::Sent);
        if self.definitions.changing.load(SeqCst) > usize::from(own) {
            self.release();
            self.standing = Standing::InDoubt;
        }
    }

    /// The server has read all that needed a cover.
    pub(crate) fn read(&mut self) {
        self.release();
        self.standing = Standing::Read;
    }

    /// Whether nobody can say by which definitions the server reads what it is sent now.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.standing != Standing::Covered
    }

    /// Others wait for this session's statements.
    pub(crate) fn is_covered(&self) -> bool {
        self.standing == Standing::Covered
    }

    /// Whether somebody waits for this session's statements by now.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_covered() && self.place.era.load(SeqCst) < self.definitions.wanted.load(SeqCst)
    }

    /// The same; if not, the task is woken when somebody does.
    pub(crate) fn poll_wanted(&self, context: &Context<'_>) -> bool {
        if self.is_covered() {
            self.place.wanted.register(context.waker());
        }
        self.is_wanted()
    }

    fn release(&self) {
        let held = self.place.era.swap(0, SeqCst);
        if held > 0 && held < self.definitions.wanted.load(SeqCst) {
            self.definitions.released.notify_waiters();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.release();
    }
}

/// A session changes definitions, from before the statement is sent to the end of its transaction.
#[derive(Debug)]
pub(crate) struct Changing {
    definitions: Arc<Definitions>,
    stage: Stage,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Others doubt, and nothing was sent.
    Announced,
    /// Tables are locked, for a change that may follow.
    Locked,
    /// Definitions have changed, or may have.
    Sent,
}

impl Changing {
    /// Begins to change, if no statement of another session stands in the way.
    pub(crate) fn at_once(reader: &Reader) -> Option<Self> {
        let definitions = &reader.definitions;
        let none_before =
            |era| definitions.held_before(era).iter().all(|place| Arc::ptr_eq(place, &reader.place));
        // Looked for first: nobody need doubt for a change that can't be yet.
        if !none_before(definitions.era.load(SeqCst) + 1) {
            return None;
        }
        let (changing, era) = Self::announce(definitions);
        none_before(era).then_some(changing)
    }

    /// Begins to change when the server has read the statements that were decided by the definitions as they are. Others are
    /// in doubt only for the last of those, and for no more than [`DOUBT`] on end.
    pub(crate) async fn in_turn(definitions: Arc<Definitions>) -> Self {
        loop {
            definitions.are_read_before(definitions.next_era()).await;
            let (changing, era) = Self::announce(&definitions);
            if timeout(DOUBT, definitions.are_read_before(era)).await.is_ok() {
                return changing;
            }
        }
    }

    /// From now on others are in doubt; those of older eras may not be.
    fn announce(definitions: &Arc<Definitions>) -> (Self, u64) {
        definitions.changing.fetch_add(1, SeqCst);
        (Self { definitions: definitions.clone(), stage: Stage::Announced }, definitions.next_era())
    }

    /// A statement is sent that keeps others from tables until the transaction ends.
    pub(crate) fn locks(&mut self) {
        if self.stage == Stage::Announced {
            self.stage = Stage::Locked;
        }
    }

    /// A statement is sent that changes definitions.
    pub(crate) fn sent(&mut self) {
        self.stage = Stage::Sent;
    }

    /// Nothing of it was sent: it may as well be given up.
    pub(crate) fn is_only_announced(&self) -> bool {
        self.stage == Stage::Announced
    }
}

impl Drop for Changing {
    /// What comes from now on finds nothing remembered of the definitions as they were.
    fn drop(&mut self) {
        if self.stage == Stage::Sent {
            self.definitions.changed();
        }
        self.definitions.changing.fetch_sub(1, SeqCst);
        self.definitions.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Poll, Waker};

    use super::*;

    fn readers() -> (Arc<Definitions>, Reader, Reader) {
        let all = Arc::new(Definitions::default());
        let [one, other] = ["one", "other"].map(|session| Reader::new(all.clone(), session.into()));
        (all, one, other)
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_change_waits_for_what_was_begun_before_it_and_puts_in_doubt_what_comes_after() {
        let (all, mut one, mut other) = readers();
        one.begin(None);
        assert!(!one.is_in_doubt());
        assert!(Changing::at_once(&other).is_none());
        one.read();
        let changing = Changing::at_once(&other).unwrap();
        one.begin(None);
        assert!(one.is_in_doubt());
        assert!(Changing::at_once(&one).is_some(), "what is in doubt keeps nobody waiting");
        drop(changing);
        one.begin(None);
        assert!(!one.is_in_doubt());
        other.begin(None);
        assert_eq!(all.changes(), 0, "nothing was sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_waits_for_long_keeps_others_in_doubt_for_a_second_at_most() {
        let (all, mut one, mut other) = readers();
        one.begin(None);
        let mut waits = pin!(Changing::in_turn(all.clone()));
        assert!(poll(waits.as_mut()).is_pending());
        assert!(one.is_wanted());
        // Begun while it waits: not in doubt, and waited for in turn.
        other.begin(None);
        assert!(!other.is_in_doubt() && !other.is_wanted());
        one.read();
        assert!(poll(waits.as_mut()).is_pending());
        one.begin(None);
        assert!(one.is_in_doubt());
        tokio::time::advance(DOUBT).await;
        assert!(poll(waits.as_mut()).is_pending());
        one.begin(None);
        assert!(!one.is_in_doubt());
        assert_eq!(all.holders(), ["other".into()]);
        other.read();
        one.read();
        assert!(poll(waits.as_mut()).is_ready());
    }

    #[test]
    fn a_session_s_own_change_puts_itself_in_doubt_once_it_is_sent() {
        let (all, mut one, _other) = readers();
        let mut own = Changing::at_once(&one).unwrap();
        one.begin(Some(&own));
        assert!(!one.is_in_doubt());
        one.read();
        own.sent();
        one.begin(Some(&own));
        assert!(one.is_in_doubt());
        drop(own);
        assert_eq!(all.changes(), 1);
    }

    #[test]
    fn whoever_leaves_is_waited_for_no_more() {
        let (_all, mut one, other) = readers();
        one.begin(None);
        drop(one);
        assert!(Changing::at_once(&other).is_some());
    }
}
