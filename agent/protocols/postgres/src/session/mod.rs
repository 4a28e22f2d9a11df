//! The engine: both directions of one connection, in one task.

mod asking;
mod changes;
mod cut;
mod describing;
mod ending;
mod expect;
mod from_client;
mod from_server;
mod holding;
mod intake;
mod leaving;
mod link;
mod names;
mod redefining;
mod refuse;
mod results;
mod transcript;
mod typed;
mod understanding;
mod veil;

use std::{
    future::poll_fn,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use tidegate_gate::{
    Gate, Masker, Refusal, ServeError,
    policy::{ContentMask, Verdict},
};

use self::{
    changes::Changes,
    ending::{Ending, Phase},
    expect::Owed,
    holding::Holding,
    intake::Body,
    link::Link,
    names::Names,
    redefining::Redefining,
    understanding::Understanding,
};
pub(crate) use self::{
    from_server::STANDBY,
    refuse::{last_words, sqlstate},
};
use crate::{
    cancel::{CancelKey, Interrupt},
    database::Database,
    definitions::{Changing, Reader},
    dialect::Dialect,
    sql::Overlay,
    startup::ClientStream,
    upstream::UpstreamStream,
    wire::backend::TransactionStatus,
    wire::write,
};

/// Where a session's statements run.
pub(crate) struct Place {
    /// What is known of the database.
    pub(crate) database: Arc<Database>,
    /// Whom the gate signed in as.
    pub(crate) user: Arc<str>,
    /// Settings that the client asked for when it connected.
    pub(crate) settings: Vec<(String, String)>,
    /// How cancel requests reach what waits for a person.
    pub(crate) interrupt: Interrupt,
    /// The server replays what another one does.
    pub(crate) standby: bool,
    /// How the server reads statements.
    pub(crate) dialect: Dialect,
}

/// One session, signed in on both sides.
pub(crate) struct Session {
    gate: Gate,
    client: Link<ClientStream>,
    server: Link<UpstreamStream>,
    database: Arc<Database>,
    /// The server replays what another one does.
    standby: bool,
    dialect: Dialect,
    user: Arc<str>,
    interrupt: Interrupt,
    /// Kept for as long as the session may be cancelled.
    cancel_key: CancelKey,
    owed: Owed,
    names: Names,
    /// Relations that this session created and that the catalog may not show yet.
    overlay: Arc<Overlay>,
    /// What others' changes may have taken from it, as far as that was noted.
    losses: u64,
    /// What it has changed of itself.
    changes: Changes,
    input: Input,
    output: Output,
    waits: Waits,
    /// How far the session's end has come, if nobody but the agent ends it.
    phase: Phase,
    /// The client has been told already why the session ends.
    told: bool,
    /// The client has said goodbye.
    ended: bool,
    /// Definitions change in the transaction that is open: nobody can see yet what they will be.
    changing: Option<Changing>,
    /// What the definitions are to statements that the server has yet to read.
    reader: Reader,
    transaction: Transaction,
    /// What the server says between actions may belong to what ran last, whose errors are withheld.
    withheld: bool,
}

/// How far what the client sends is taken in.
#[derive(Default)]
struct Input {
    /// The message that goes its way unheld.
    body: Option<Body>,
    /// After a refusal in the extended flow, messages count for nothing up to the next Sync.
    skipping: bool,
    /// The next message waits: for what the server still owes, or see [`Waits`].
    waiting: bool,
    /// Some of it was left lying because the server's side was full.
    left_lying: bool,
    /// The server takes copy data.
    copying_in: bool,
}

/// How the server's message at hand is passed on.
#[derive(Default)]
struct Output {
    /// Bytes of it that pass unseen.
    passing: usize,
    /// Bytes of it that nobody gets.
    dropping: usize,
    /// What runs is to be cancelled: see [`cut`].
    cancel_due: bool,
}

/// What the client's next message waits for beside the server's answers, or has waited for. It is for that message alone.
#[derive(Default)]
struct Waits {
    /// To be understood.
    understanding: Option<Box<Understanding>>,
    /// For a person's answer.
    holding: Option<Box<Holding>>,
    /// To change definitions, or for the end of somebody's change.
    redefining: Option<Box<Redefining>>,
}

/// The transaction that is open, if one is.
#[derive(Default)]
struct Transaction {
    /// One is open, or has failed.
    is_open: bool,
    /// An Execute was answered since the server was last ready: one is open that it has yet to speak of.
    executed: bool,
    /// Others see what it defined only from its end on: what was looked up before says nothing of that.
    redefined: bool,
    /// What an error that ends it may show: deferred constraints speak of any row that it changed.
    withhold_errors: bool,
    content: Option<Arc<ContentMask>>,
}

impl Transaction {
    fn is_under_way(&self) -> bool {
        self.is_open || self.executed
    }
}

/// How errors and notices that belong to an action are shown.
struct Shown {
    content: Option<Arc<ContentMask>>,
    withhold_errors: bool,
    masks_columns: bool,
}

impl Shown {
    fn by(verdict: &Verdict) -> Self {
        let Verdict { withhold_errors, masks_columns, .. } = *verdict;
        Self { content: verdict.content.clone(), withhold_errors, masks_columns }
    }
}

/// What happens next.
enum Turn {
    Client,
    Server,
    ClientGone,
    ServerGone,
    /// The phase is over.
    Ending(Refusal),
    /// What the client's message waited for is there.
    Answered,
    /// There is something to tell the client, or the server.
    Told,
    /// Others wait for what the server has yet to read.
    Hurry,
    Idle,
}

impl Session {
    pub(crate) fn new(
        gate: Gate,
        client: (ClientStream, &[u8]),
        server: (UpstreamStream, Vec<u8>),
        place: Place,
        cancel_key: CancelKey,
        greeting: &[u8],
    ) -> Self {
        let left_lying = !client.1.is_empty();
        let losses = place.database.definitions().losses();
        let mut client = Link::new(client.0, client.1);
        client.outbound.extend_from_slice(greeting);
        let changes = Changes::new(gate.session().clone(), place.settings);
        let reader = Reader::new(place.database.definitions().clone(), gate.session().clone());
        Self {
            gate,
            client,
            server: Link::new(server.0, &server.1),
            database: place.database,
            standby: place.standby,
            dialect: place.dialect,
            user: place.user,
            interrupt: place.interrupt,
            cancel_key,
            owed: Owed::default(),
            names: Names::default(),
            overlay: Arc::default(),
            losses,
            changes,
            input: Input { left_lying, ..Input::default() },
            output: Output::default(),
            waits: Waits::default(),
            phase: Phase::Serving,
            told: false,
            ended: false,
            changing: None,
            reader,
            transaction: Transaction::default(),
            withheld: false,
        }
    }

    /// Runs to the session's end. Whoever is to blame for an early end, the client is told what it may know.
    pub(crate) async fn run(mut self) -> Result<(), ServeError> {
        let end = self.turns().await;
        if let Err(error) = &end {
            let (code, why) = last_words(error);
            self.farewell(code, &why, None);
        }
        let is_left = end.is_ok();
        self.leave(is_left).await;
        end
    }

    async fn turns(&mut self) -> Result<(), ServeError> {
        let mut ending = self.ending();
        loop {
            match self.turn(&mut ending).await? {
                Turn::Client => self.serve_client().await?,
                Turn::Server => {
                    self.take_from_server()?;
                    self.cancel_cut().await?;
                    if self.waits_for_server() && (self.owed.is_empty() || self.input.copying_in) {
                        self.input.waiting = false;
                        self.serve_client().await?;
                    }
                }
                Turn::Answered => {
                    self.input.waiting = false;
                    self.serve_client().await?;
                }
                Turn::Told => {}
                Turn::Hurry => self.hurry(),
                Turn::Ending(refusal) => {
                    self.next_phase(refusal).await?;
                    ending = self.ending();
                }
                Turn::ClientGone => return Ok(()),
                Turn::ServerGone => return Err(ServeError::Upstream("it closed the connection".into())),
                Turn::Idle => {
                    self.farewell("57P01", "terminating connection: the gate is stopping", None);
                    return Ok(());
                }
            }
            if self.ended {
                return Ok(());
            }
            if self.owed.are_read() {
                self.reader.read();
            }
        }
    }

    /// The client's next message waits for nothing but the server.
    fn waits_for_server(&self) -> bool {
        self.input.waiting && !self.is_understanding() && !self.is_holding() && !self.is_redefining()
    }

    /// Has the server say what it keeps to itself.
    fn flush(&mut self) {
        write::flush(&mut self.server.outbound);
        self.owed.flushed();
    }

    async fn serve_client(&mut self) -> Result<(), ServeError> {
        self.take_from_client().await?;
        self.input.left_lying = self.server.is_full() && !self.client.inbound.is_empty();
        Ok(())
    }

    /// Writes what waits, then reads from whichever side has something. When the agent is stopping, no new statement is
    /// taken, and the session is idle once nothing is owed.
    async fn turn(&mut self, ending: &mut Ending) -> Result<Turn, ServeError> {
        let is_stopping = self.phase != Phase::Serving;
        poll_fn(|context| {
            self.tell_held();
            self.tell_redefining();
            if let Poll::Ready(Err(_)) = self.client.poll_drain(context) {
                return Poll::Ready(Ok(Turn::ClientGone));
            }
            if let Poll::Ready(Err(error)) = self.server.poll_drain(context) {
                return Poll::Ready(Err(lost(error)));
            }
            if let Poll::Ready(turn) = self.poll_server(context) {
                return Poll::Ready(turn);
            }
            if is_stopping && self.owed.is_empty() && self.output.passing == 0 {
                return Poll::Ready(Ok(Turn::Idle));
            }
            if (!is_stopping || self.input.copying_in || self.input.body.is_some())
                && let Poll::Ready(turn) = self.poll_client(context)
            {
                return Poll::Ready(Ok(turn));
            }
            if let Poll::Ready(turn) = self.poll_understanding(context) {
                return Poll::Ready(Ok(turn));
            }
            if self.poll_answer(context).is_ready() {
                return Poll::Ready(Ok(Turn::Answered));
            }
            if let Poll::Ready(turn) = self.poll_redefining(context) {
                return Poll::Ready(Ok(turn));
            }
            if self.must_hurry(context) {
                return Poll::Ready(Ok(Turn::Hurry));
            }
            if let Poll::Ready(refusal) = ending.as_mut().poll(context) {
                return Poll::Ready(Ok(Turn::Ending(refusal)));
            }
            self.client.rest();
            self.server.rest();
            Poll::Pending
        })
        .await
    }

    fn poll_server(&mut self, context: &mut Context<'_>) -> Poll<Result<Turn, ServeError>> {
        if self.client.is_full() {
            return Poll::Pending;
        }
        self.server.poll_fill(context).map(|read| match read {
            Ok(0) => Ok(Turn::ServerGone),
            Ok(_) => Ok(Turn::Server),
            Err(error) => Err(lost(error)),
        })
    }

    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        if self.input.waiting || self.server.is_full() {
            return self.poll_departure(context);
        }
        if self.input.left_lying {
            return Poll::Ready(Turn::Client);
        }
        self.client.poll_fill(context).map(|read| match read {
            Ok(0) | Err(_) => Turn::ClientGone,
            Ok(_) => Turn::Client,
        })
    }

    /// Nothing is taken from the client now, but that it leaves is noticed, as far as it has not sent much before.
    fn poll_departure(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        while !self.client.holds_much() {
            match self.client.poll_fill(context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Turn::ClientGone),
                Poll::Ready(Ok(_)) => self.input.left_lying = true,
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn masker(&self) -> Arc<Masker> {
        self.gate.masker().clone()
    }

    /// The server's word on the transaction: at its end, what it redefined holds for everyone.
    fn transaction_status(&mut self, status: TransactionStatus) {
        self.transaction.is_open = status != TransactionStatus::Idle;
        self.transaction.executed = false;
        if self.transaction.is_open {
            return;
        }
        if mem::take(&mut self.transaction).redefined {
            self.database.definitions().changed();
        }
        if self.owed.is_empty() {
            self.changes.transaction_ended();
        }
        if !self.owed.redefines() {
            self.changing = None;
        }
    }
}

fn lost(error: std::io::Error) -> ServeError {
    ServeError::Upstream(error.to_string())
}

#[cfg(test)]
mod tests;
