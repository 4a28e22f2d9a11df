//! How slowly a client may send a request's body, and the next request.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout};

use crate::body::BodyError;

/// How slowly a client may send a request's body, and the next request. Of a body only what it is waited for counts, never what the upstream takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long nothing may come.
    pub(crate) silence: Duration,
    /// Bytes that must come at least, in each such time of waiting, of a body whose length was told: one that is made as it is sent
    /// has its own time.
    pub(crate) least: (u64, Duration),
    /// How long a body may take that is read before it is decided on, however it comes.
    pub(crate) whole: Duration,
    /// How long a connection may be idle between requests.
    pub(crate) idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { silence: minute, least: (64 * 60, minute), whole: minute, idle: 5 * minute }
    }
}

impl Patience {
    /// With a body of so many bytes, if they are known.
    pub(crate) fn with(self, length: Option<u64>) -> Self {
        match length {
            Some(_) => self,
            None => Self { least: (0, self.least.1), ..self },
        }
    }
}

/// A body as it comes, measured.
#[derive(Debug)]
pub(crate) struct Coming {
    /// None for streams that may be silent for as long as both like.
    patience: Option<Patience>,
    waited: Duration,
    bytes: u64,
}

impl Coming {
    pub(crate) fn new(patience: Option<Patience>) -> Self {
        Self { patience, waited: Duration::ZERO, bytes: 0 }
    }

    /// Waits for what comes next; `bytes` says how much of the body that is.
    pub(crate) async fn next<T>(
        &mut self,
        coming: impl Future<Output = T>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Result<T, BodyError> {
        let Some(patience) = self.patience else { return Ok(coming.await) };
        let since = Instant::now();
        let Ok(came) = timeout(patience.silence, coming).await else {
            return Err(BodyError::Slow(format!("nothing of it came for {:?}", patience.silence)));
        };
        self.took(&patience, since.elapsed(), bytes(&came))?;
        Ok(came)
    }

    fn took(&mut self, patience: &Patience, waited: Duration, bytes: usize) -> Result<(), BodyError> {
        let (least, time) = patience.least;
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited >= time {
            if self.bytes < least {
                return Err(BodyError::Slow(format!("less than {least} bytes of it came in {time:?}")));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What comes of it when so many bytes come after each wait.
    fn after(parts: &[(Duration, usize)]) -> Result<(), BodyError> {
        let (patience, mut coming) = (Patience::default(), Coming::new(Some(Patience::default())));
        parts.iter().try_for_each(|(waited, bytes)| coming.took(&patience, *waited, *bytes))
    }

    #[test]
    fn a_byte_now_and_then_is_too_slow_however_long_it_was_fast_before() {
        assert!(after(&[(59 * SECOND, 1)]).is_ok());
        assert!(after(&[(59 * SECOND, 1), (SECOND, 1)]).is_err());
        assert!(after(&[(59 * SECOND, 1 << 20), (SECOND, 1), (59 * SECOND, 1), (SECOND, 1)]).is_err());
    }

    #[test]
    fn a_slow_line_is_fast_enough() {
        assert!(after(&[(SECOND, 64); 600]).is_ok());
        assert!(after(&[(SECOND, 63); 60]).is_err());
    }

    #[test]
    fn a_client_that_nobody_waits_for_may_take_its_time() {
        assert!(after(&[(Duration::ZERO, 1); 100_000]).is_ok());
    }
}
