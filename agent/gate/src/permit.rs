//! The proof that an action was decided and recorded.

use std::{
    borrow::Cow,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_policy::{Shape, Verdict};

use crate::{Entry, Hold, Masker, Refusal, grounds::Grounds, inner::Inner};

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
    /// What the upstream answered, in the protocol's words, where that is more than rows.
    pub answer: Option<String>,
}

/// The proof that one action was allowed and that this is in the record. Dropping it records that the action was cut off.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Inner>,
    id: u64,
    verdict: Arc<Verdict>,
    shape: Arc<Shape>,
    grounds: Grounds,
    since: Instant,
    settled: bool,
    /// The record says already that it holds no more of the rows.
    cut_short: AtomicBool,
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
            settled: false,
            cut_short: AtomicBool::new(false),
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

    /// Adds to the record what was shown to the client. Only where the rule asks for it, and up to its limit for one
    /// session: a line in the record says from where on there are no rows.
    pub fn tap(&self, shown: &[u8]) {
        let Some(limit) = self.verdict.record_rows else { return };
        let data: Cow<'_, str> = match std::str::from_utf8(shown) {
            Ok(text) => text.into(),
            Err(_) => {
                use base64::Engine;
                format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(shown)).into()
            }
        };
        if self.gate.takes_rows(data.len(), limit) {
            self.gate.note(&Entry::Shown { id: self.id, data });
        } else if !self.cut_short.swap(true, Ordering::Relaxed) {
            let detail = format!(
                "the record holds as much of what was shown as the rule says, {limit} bytes a session: of action {} \
                 nothing more",
                self.id
            );
            self.gate.note(&Entry::Event { event: "rows-not-recorded".into(), detail: detail.into() });
        }
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
            answer: outcome.answer.as_deref().map(Into::into),
            microseconds: micros(self.since.elapsed()),
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.settled {
            self.settle("aborted", &Outcome::default());
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
