//! The proof that an action was decided and recorded.

use std::{
    borrow::Cow,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_policy::{Shape, Verdict};

use crate::{
    Entry, Hold, Masker, Refusal,
    grounds::Grounds,
    inner::{Inner, lock},
};

/// The answer to an action.
#[derive(Debug)]
pub enum Decision {
    /// It may run; the record says so already.
    Permit(Permit),
    /// It waits for a person: [`Hold::put`] asks one.
    Hold(Hold),
    /// It may not.
    Refuse(Refusal),
}

/// How an action ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The upstream's error code, if it failed.
    pub error: Option<String>,
    /// Rows shown.
    pub rows: u64,
    /// Bytes shown.
    pub bytes: u64,
    /// Bytes that the client sent with it.
    pub sent: u64,
    /// What the upstream answered, in the protocol's words, where that is more than rows.
    pub answer: Option<String>,
    /// Time from decision to the beginning of that answer.
    pub waited: Option<Duration>,
}

/// The proof that one action was allowed and that this is in the record. Dropping it records that the action was cut off,
/// with what was known of its outcome until then.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Inner>,
    id: u64,
    verdict: Arc<Verdict>,
    shape: Arc<Shape>,
    grounds: Grounds,
    since: Instant,
    so_far: Mutex<Outcome>,
    settled: bool,
    /// The record says already that it holds no more of the data.
    data_ended: AtomicBool,
}

impl Permit {
    pub(crate) fn new(gate: Arc<Inner>, id: u64, verdict: Arc<Verdict>, shape: Arc<Shape>) -> Self {
        Self {
            gate,
            id,
            verdict,
            shape,
            grounds: Grounds::default(),
            since: Instant::now(),
            so_far: Mutex::default(),
            settled: false,
            data_ended: AtomicBool::new(false),
        }
    }

    /// The same, by somebody's yes to these questions.
    pub(crate) fn by_yes_to(mut self, questions: Vec<Arc<str>>) -> Self {
        self.grounds = Grounds::new(self.id, questions);
        self
    }

    pub(crate) fn grounds(&self) -> &Grounds {
        &self.grounds
    }

    pub(crate) fn is_of(&self, gate: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }

    /// Resolves when the action would no longer be allowed: by the policy as it is now, to whoever the process is now, or
    /// because the yes that it runs by was taken back.
    pub async fn revoked(&self) -> Refusal {
        let mut taken_back = pin!(self.grounds.taken_back(&self.gate, "action"));
        loop {
            let changed = self.gate.changed();
            if let Some(refusal) = self.gate.no_longer("action", &self.shape, &self.verdict.holds) {
                return refusal;
            }
            tokio::select! {
                () = changed => {}
                refusal = &mut taken_back => return refusal,
            }
        }
    }

    /// What was decided, with the masks of every result.
    pub fn verdict(&self) -> &Arc<Verdict> {
        &self.verdict
    }

    /// What applies the masks.
    pub fn masker(&self) -> &Masker {
        self.gate.masker()
    }

    /// Whether the rule has the record keep the data, too.
    pub fn keeps_data(&self) -> bool {
        self.verdict.record_data.is_some()
    }

    /// Adds to the record what was shown to the client. Only where the rule asks for it, and up to its limit for one
    /// session: a line in the record says from where on there is no data.
    pub fn tap(&self, shown: &[u8]) {
        self.keep(shown, |id, data| Entry::Shown { id, data });
    }

    /// The same of what the client sent with the action. Whoever calls this has withheld what records must not hold.
    pub fn tap_sent(&self, sent: &[u8]) {
        self.keep(sent, |id, data| Entry::Sent { id, data });
    }

    fn keep<'d>(&self, data: &'d [u8], entry: fn(u64, Cow<'d, str>) -> Entry<'d>) {
        let Some(limit) = self.verdict.record_data else { return };
        let data = written(data);
        if self.gate.takes_data(data.len(), limit) {
            self.gate.note(&entry(self.id, data));
        } else {
            self.end_data(&format!(
                "the record holds as much data of this session as the rule says, {limit} bytes"
            ));
        }
    }

    /// Records why the record has no more of the data, once.
    pub fn end_data(&self, reason: &str) {
        if self.keeps_data() && !self.data_ended.swap(true, Ordering::Relaxed) {
            self.gate.note(&Entry::DataEnds { id: self.id, reason: reason.into() });
        }
    }

    /// Notes what is known of the outcome before the action is over.
    pub fn so_far(&self, note: impl FnOnce(&mut Outcome)) {
        note(&mut lock(&self.so_far));
    }

    /// Notes that the answer begins, and how.
    pub fn answered(&self, answer: String) {
        let waited = Some(self.since.elapsed());
        self.so_far(|outcome| (outcome.answer, outcome.waited) = (Some(answer), waited));
    }

    /// Records that the action ended, with what was noted so far.
    pub fn ended(self) {
        let outcome = std::mem::take(&mut *lock(&self.so_far));
        self.done(&outcome);
    }

    /// Records how the action ended.
    pub fn done(mut self, outcome: &Outcome) {
        self.settled = true;
        let word = if outcome.error.is_some() { "failed" } else { "done" };
        self.settle(word, outcome);
    }

    fn settle(&self, word: &str, outcome: &Outcome) {
        self.gate.note(&Entry::Outcome {
            id: self.id,
            outcome: word.into(),
            error: outcome.error.as_deref().map(Into::into),
            rows: outcome.rows,
            bytes: outcome.bytes,
            sent: outcome.sent,
            answer: outcome.answer.as_deref().map(Into::into),
            waited: outcome.waited.map(micros),
            microseconds: micros(self.since.elapsed()),
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.settled {
            self.settle("aborted", &std::mem::take(&mut *lock(&self.so_far)));
        }
    }
}

/// Data as records have it.
fn written(data: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(data) {
        Ok(text) => text.into(),
        Err(_) => {
            use base64::Engine;
            format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(data)).into()
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
