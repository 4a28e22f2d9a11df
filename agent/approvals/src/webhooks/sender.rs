//! Sending one receiver its letters.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tidegate_gate::Credentials;
use tidegate_https::Https;
use tokio::sync::watch;

use super::{Format, Retries, Webhook, words};
use crate::{Desk, Letter, letter::LONGEST_WAIT, store::StoreError};

/// How many letters are read at once.
const BATCH: u32 = 32;
/// How long a store that does not answer is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// One receiver, and what it takes to reach it.
pub(super) struct Sender {
    pub(super) hook: Webhook,
    pub(super) https: Https,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) retries: Retries,
}

/// Why a letter was not taken.
enum NotTaken {
    /// The receiver refuses this one; it may take others.
    Refused(String),
    /// The receiver takes none now.
    Away(String),
}

impl Sender {
    /// Sends until dropped.
    pub(super) async fn run(self, desk: Desk) {
        let mut changes = desk.changes();
        loop {
            let pause = self.send_due(&desk, &mut changes).await.unwrap_or_else(|error| {
                tracing::warn!(hook = %self.hook.name, %error, "letters wait");
                Pause::Fixed(STORE_PAUSE)
            });
            match pause {
                Pause::Fixed(time) => tokio::time::sleep(time).await,
                Pause::UntilDue(time) => {
                    tokio::select! {
                        _ = changes.changed() => {}
                        () = tokio::time::sleep(time) => {}
                    }
                }
            }
        }
    }

    /// Sends what is due; for how long there is nothing more to do. What to send next is asked for anew whenever something was
    /// written: it may be an alert, or what is no more to be told.
    async fn send_due(&self, desk: &Desk, changes: &mut watch::Receiver<u64>) -> Result<Pause, StoreError> {
        loop {
            changes.mark_unchanged();
            let now = desk.now();
            let letters = desk.letters(&self.hook.name, now, BATCH).await?;
            let mut sent = 0;
            for letter in letters.iter().take_while(|letter| letter.is_due(now)) {
                if sent > 0 && changes.has_changed().unwrap_or(false) {
                    break;
                }
                sent += 1;
                if let Some(pause) = self.attempt(desk, letter).await? {
                    return Ok(Pause::Fixed(pause));
                }
            }
            if sent == 0 {
                let now = now.as_millisecond();
                let next = letters.first().map_or(i64::MAX, |letter| letter.due.saturating_sub(now));
                let next = Duration::from_millis(u64::try_from(next).unwrap_or(0));
                return Ok(Pause::UntilDue(next.min(self.retries.longest)));
            }
        }
    }

    /// Tries a letter once, unless it was taken back. For how long the receiver is to be left alone, if it does not answer.
    async fn attempt(&self, desk: &Desk, letter: &Letter) -> Result<Option<Duration>, StoreError> {
        let (hook, question) = (&*self.hook.name, &*letter.question);
        if !desk.attempt(letter).await? {
            return Ok(None);
        }
        let Err(failed) = self.deliver(letter).await else {
            tracing::debug!(hook, question, letter = letter.id, "told");
            desk.done_with(letter).await?;
            return Ok(None);
        };
        let wait = self.wait(letter.attempts);
        let (why, pause) = match failed {
            NotTaken::Refused(why) => (why, None),
            NotTaken::Away(why) => (why, Some(wait.min(self.retries.pause))),
        };
        let next = desk.now().checked_add(wait).unwrap_or(Timestamp::MAX);
        let end = i64::try_from(self.retries.end.as_millis()).unwrap_or(i64::MAX);
        if next.as_millisecond().saturating_sub(letter.written) > end {
            tracing::error!(hook, question, letter = letter.id, why, "a letter was given up");
            desk.done_with(letter).await?;
        } else {
            tracing::warn!(hook, question, letter = letter.id, why, again_in = ?wait, "a letter was not taken");
            desk.put_off(letter, next).await?;
        }
        Ok(pause)
    }

    async fn deliver(&self, letter: &Letter) -> Result<(), NotTaken> {
        if letter.body.is_null() {
            return Err(NotTaken::Refused("what is kept of it can't be read".into()));
        }
        let url = self.url().await.map_err(NotTaken::Away)?;
        let key = self.key().await.map_err(NotTaken::Away)?;
        let body = match self.hook.format {
            Format::Json => letter.body.clone(),
            Format::Slack => words::slack(&letter.body, &self.hook.facts),
            Format::Teams => words::teams(&letter.body, &self.hook.facts),
        };
        let body = body.to_string().into_bytes();
        // The world's, by which receivers tell what is old.
        let time = Timestamp::now().as_second();
        let mut headers = vec![("webhook-id", letter.id.clone()), ("webhook-timestamp", time.to_string())];
        headers.extend(key.map(|key| ("webhook-signature", key.sign(&letter.id, time, &body))));
        let answer = self.https.post_json(url, &headers, body).await;
        let answer = answer.map_err(|error| NotTaken::Away(error.to_string()))?;
        let why = format!("it answered {}", answer.status);
        match answer.status {
            200..=299 => Ok(()),
            408 | 429 | 500.. => Err(NotTaken::Away(why)),
            _ => Err(NotTaken::Refused(why)),
        }
    }

    /// How long after so many attempts the next one is made.
    fn wait(&self, attempts: i64) -> Duration {
        let doublings = u32::try_from(attempts.clamp(0, 15)).unwrap_or(15) * 2;
        self.retries.first.saturating_mul(1 << doublings).min(self.retries.longest).min(LONGEST_WAIT)
    }
}

/// For how long there is nothing to do.
enum Pause {
    /// Whatever happens.
    Fixed(Duration),
    /// Unless something new is to be told.
    UntilDue(Duration),
}
