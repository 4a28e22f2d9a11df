//! gRPC: what its messages are, where the bundle has their descriptors.
//!
//! Of a call whose client sends one message, that is the request's body. Of a client's stream each message is decided as it
//! would be alone, the first with the request. What comes back is decided message by message where a rule is about messages, and
//! masked message by message.

mod fields;
mod frames;
mod masked;
mod sent;
mod shown;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use std::{fs, path::Path};

use bytes::Bytes;
use http::HeaderMap;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, prost::Message};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::frames::{Frames, framed};
pub(crate) use self::{frames::Ends, sent::Framed, shown::Messages, status::retry_info};
use crate::{fields::Fields, media::media_type, shown::Masks};

/// Most bytes of a file of descriptors.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What the calls of a resource's services are.
#[derive(Debug, Clone)]
pub(crate) struct Descriptors(DescriptorPool);

/// A call that the descriptors have.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What the client sends.
    input: MessageDescriptor,
    /// What it is answered.
    output: MessageDescriptor,
    /// The client sends a stream of messages, and not one.
    pub(crate) is_client_stream: bool,
}

impl Descriptors {
    /// Reads a file of a `FileDescriptorSet`, as protoc makes it.
    ///
    /// # Errors
    /// What is wrong with it, with its name.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let unreadable = |error| format!("descriptors: {shown} can't be read: {error}");
        let length = fs::metadata(path).map_err(unreadable)?;
        if !length.is_file() || length.len() > LARGEST {
            return Err(format!("descriptors: {shown} is no file of at most {LARGEST} bytes"));
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        Self::of(&bytes).map_err(|why| {
            format!(
                "descriptors: {shown} is of no use: {why}; make it by protoc --include_imports \
                 --descriptor_set_out={shown} FILES"
            )
        })
    }

    /// The same of a file's content.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, String> {
        let pool = DescriptorPool::decode(bytes).map_err(|error| error.to_string())?;
        if pool.services().len() == 0 {
            return Err("it has no service".into());
        }
        Ok(Self(pool))
    }

    /// The call of this name (`package.Service/Method`).
    pub(crate) fn call(&self, name: &str) -> Option<Call> {
        let (service, method) = name.split_once('/')?;
        let service = self.0.get_service_by_name(service)?;
        let method = service.methods().find(|known| known.name() == method)?;
        Some(Call {
            input: method.input(),
            output: method.output(),
            is_client_stream: method.is_client_streaming(),
        })
    }
}

impl Call {
    /// The fields of a body that is the call's one message; an error says why they cannot be told.
    pub(crate) fn fields(&self, body: &[u8]) -> Result<Fields, String> {
        match frames::only(body)? {
            Some(message) => fields::of(&self.input, &message),
            None => Ok(Vec::new()),
        }
    }

    /// The same as JSON, for people.
    pub(crate) fn shown(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        match frames::only(body)? {
            Some(message) => fields::shown(&self.input, &message),
            None => Ok(Vec::new()),
        }
    }

    /// A message that answers it as masks show it; an error says why it cannot be masked.
    pub(crate) fn masked(&self, message: &[u8], masks: &Masks<'_>) -> Result<Vec<u8>, String> {
        masked::masked(&self.output, message, masks)
    }

    /// The body whose message is written as JSON: for cases, and to explain.
    pub(crate) fn body_of_json(&self, text: &str) -> Result<Bytes, String> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let message = DynamicMessage::deserialize(self.input.clone(), &mut reader);
        let message = message.and_then(|message| reader.end().map(|()| message));
        let wrong = |error| format!("the body is no {}: {error}", self.input.full_name());
        message.map(|message| frames::framed(&message.encode_to_vec())).map_err(wrong)
    }
}

/// Bytes of the message in a frame.
pub(crate) fn length(frame: &[u8]) -> usize {
    frame.len().saturating_sub(frames::PREFIX)
}

/// Whether what header fields tell of is gRPC whose messages are Protocol Buffers.
pub(crate) fn is_protobuf(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| matches!(&*kind, "application/grpc" | "application/grpc+proto"))
}

/// Whether a body of this media type is messages, each behind its length: of gRPC, gRPC-Web and Connect's streams.
pub(crate) fn is_enveloped(headers: &HeaderMap) -> bool {
    let is = |kind: &str| {
        let is_text = kind.starts_with("application/grpc-web-text");
        kind.starts_with("application/grpc") && !is_text || kind.starts_with("application/connect+")
    };
    media_type(headers).is_some_and(|kind| is(&kind))
}
