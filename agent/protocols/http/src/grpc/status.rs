//! What a call's status says beside its code and text (google/rpc/status.proto and error_details.proto).

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::wire;

/// The `grpc-status-details-bin` of a call that can be made again after so many seconds.
pub(crate) fn retry_info(code: u64, message: &str, seconds: u64) -> String {
    let inner = |number, content: &[u8]| {
        let mut out = Vec::new();
        wire::put(number, content, &mut out);
        out
    };
    let number = |number, value| {
        let mut out = Vec::new();
        wire::put_number(number, value, &mut out);
        out
    };
    // RetryInfo.retry_delay, and Duration.seconds in it.
    let retry_info = inner(1, &number(1, seconds));
    let detail = [inner(1, b"type.googleapis.com/google.rpc.RetryInfo"), inner(2, &retry_info)].concat();
    STANDARD_NO_PAD.encode([number(1, code), inner(2, message.as_bytes()), inner(3, &detail)].concat())
}
