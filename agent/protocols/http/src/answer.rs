//! What a client gets as a response's body.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate_gate::Permit;

use crate::{
    grpc::Messages,
    problem::Problem,
    shares::{Room, Share},
    shown::Masked,
    traces::Traces,
    transcript::Transcript,
};

/// A response's body.
pub(crate) enum Answer<'a> {
    /// The gate's own.
    Own(Option<Bytes>),
    /// The upstream's, as it is shown.
    Upstream(Box<Shown<'a>>),
}

/// What of a body is looked at before it is shown.
pub(crate) enum Looked<'a> {
    Not,
    /// All of it, through masks.
    Masked(Box<Masked<'a>>),
    /// The messages of a call of gRPC, one by one.
    Messages(Messages<'a>),
}

/// An upstream's body as it is shown.
pub(crate) struct Shown<'a> {
    body: Incoming,
    permit: &'a Permit,
    looked: Looked<'a>,
    /// What came compressed and is not decoded yet.
    compressed: Bytes,
    /// Of the account's, for what is held here, and what the client was given last and may not have taken yet.
    room: Room<'a>,
    /// The client was told how it ended; there is no more for it.
    over: bool,
    transcript: Option<Transcript<'a>>,
    traces: Traces,
    /// What follows when all that was held back is out.
    trailers: Option<HeaderMap>,
    /// Bytes, where the upstream said so and nothing is masked.
    length: Option<u64>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(
        body: Incoming,
        (permit, share): (&'a Permit, &'a Share),
        looked: Looked<'a>,
        transcript: Option<Transcript<'a>>,
        traces: Traces,
        length: Option<u64>,
    ) -> Self {
        let (compressed, room) = (Bytes::new(), Room::of(share));
        let (over, trailers) = (false, None);
        Self { body, permit, looked, compressed, room, over, transcript, traces, trailers, length }
    }

    async fn next(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        let next = match self.masked().await {
            Some(Ok(frame)) => Some(self.held(frame.data_ref().map_or(0, Bytes::len)).map(|()| frame)),
            next => next,
        };
        match &next {
            Some(Ok(frame)) if frame.is_data() => self.note(frame),
            Some(Err(_)) => {}
            // Behind trailers there is nothing more.
            Some(Ok(_)) | None => self.transcript.take().into_iter().for_each(Transcript::end),
        }
        next
    }

    /// Has room for what is held, with so many bytes that are the client's to take.
    fn held(&mut self, more: usize) -> Result<(), String> {
        let held = match &self.looked {
            Looked::Not => 0,
            Looked::Masked(masks) => masks.held(),
            Looked::Messages(messages) => messages.held(),
        };
        self.room.holds(held + more).map_err(|busy| busy.detail().to_owned())
    }

    /// What comes from the upstream, without the gate's credential.
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        if let Some(trailers) = self.trailers.take() {
            return Some(Ok(Frame::trailers(trailers)));
        }
        loop {
            let frame = match self.part().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Some(Err(crate::upstream::told(&error))),
                None => return self.traces.rest().transpose().map(|rest| rest.map(Frame::data)),
            };
            let frame = match frame.into_data() {
                Ok(data) => match self.traces.take(data) {
                    Ok(data) if data.is_empty() => continue,
                    taken => return Some(taken.map(Frame::data)),
                },
                Err(frame) => frame,
            };
            let Ok(mut trailers) = frame.into_trailers() else { continue };
            self.traces.clean(&mut trailers);
            return Some(self.traces.rest().map(|rest| match rest {
                None => Frame::trailers(trailers),
                Some(rest) => {
                    self.trailers = Some(trailers);
                    Frame::data(rest)
                }
            }));
        }
    }

    /// What comes next. Of what is compressed a little at a time: it may become much.
    async fn part(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        const STEP: usize = 4 * 1024;
        if self.compressed.is_empty() {
            // Of a body whose end is known, nobody waits for the upstream to say so once more.
            let frame = if self.body.is_end_stream() { None } else { self.body.frame().await };
            let is_compressed =
                self.traces.decode() || matches!(&self.looked, Looked::Masked(masks) if masks.decode());
            match frame {
                Some(Ok(frame)) if is_compressed && frame.is_data() => {
                    self.compressed = frame.into_data().unwrap_or_default();
                }
                frame => return frame,
            }
        }
        let now = self.compressed.len().min(STEP);
        Some(Ok(Frame::data(self.compressed.split_to(now))))
    }

    async fn masked(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        while !self.over {
            if let Err(why) = self.held(0) {
                return Some(Err(why));
            }
            if let Looked::Messages(messages) = &mut self.looked {
                match messages.next().await {
                    Ok(Some(shown)) => return Some(Ok(Frame::data(shown))),
                    Ok(None) => {}
                    Err(problem) => return Some(Ok(self.cut(&problem))),
                }
            }
            let frame = match self.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(why)) => return Some(Err(why)),
                None => return self.end(),
            };
            match (&mut self.looked, frame.into_data()) {
                (Looked::Not, Ok(data)) => return Some(Ok(Frame::data(data))),
                (Looked::Not, Err(frame)) => return Some(Ok(frame)),
                (Looked::Masked(masks), Ok(data)) => match masks.take(&data) {
                    Ok(shown) if shown.is_empty() => {}
                    Ok(shown) => return Some(Ok(Frame::data(shown))),
                    Err(why) => return Some(Err(cannot_be_masked(&why))),
                },
                // What is masked has no trailers: a digest among them would tell of what is not shown.
                (Looked::Masked(_), Err(_trailers)) => {}
                (Looked::Messages(messages), Ok(data)) => messages.put(&data),
                (Looked::Messages(messages), Err(frame)) => {
                    let trailers = messages.trailers(frame.into_trailers().unwrap_or_default());
                    self.over = true;
                    return Some(trailers.map(Frame::trailers));
                }
            }
        }
        None
    }

    /// What the masks held back until the end.
    fn end(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        self.over = true;
        match std::mem::replace(&mut self.looked, Looked::Not) {
            Looked::Not => None,
            Looked::Masked(masks) => match masks.end() {
                Ok(shown) if shown.is_empty() => None,
                Ok(shown) => Some(Ok(Frame::data(shown))),
                Err(why) => Some(Err(cannot_be_masked(&why))),
            },
            Looked::Messages(messages) => messages.trailers(HeaderMap::new()).err().map(Err),
        }
    }

    /// Ends a call of gRPC in whose answer a message may not go on.
    fn cut(&mut self, problem: &Problem) -> Frame<Bytes> {
        self.over = true;
        self.permit.so_far(|outcome| outcome.error = Some(problem.detail().to_owned()));
        Frame::trailers(problem.status())
    }

    fn is_over(&self) -> bool {
        let is_held =
            !matches!(self.looked, Looked::Not) || self.trailers.is_some() || self.traces.hold_back();
        self.over || !is_held && self.body.is_end_stream()
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else { return };
        self.permit.so_far(|outcome| outcome.bytes += data.len() as u64);
        if let Some(transcript) = &mut self.transcript {
            transcript.take(data);
        }
    }
}

impl Answer<'_> {
    /// The next part; none at the end. An error says what the upstream did wrong: what was sent so far is not whole.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        match self {
            Self::Own(body) => body.take().filter(|body| !body.is_empty()).map(|body| Ok(Frame::data(body))),
            Self::Upstream(shown) => shown.next().await,
        }
    }

    /// Whether nothing more follows, not even an empty part: gRPC's clients tell by that where the status is. A body may be over
    /// without being known to be.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Own(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Upstream(shown) => shown.is_over(),
        }
    }

    /// Bytes in all, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Own(body) => Some(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Upstream(shown) => shown.length,
        }
    }
}

/// Why a response is refused, or broken off, where a mask is on it.
pub(crate) fn cannot_be_masked(why: &str) -> String {
    format!("a mask covers this response, and it cannot be masked: {why}")
}
