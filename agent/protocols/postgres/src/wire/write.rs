//! Messages onto the end of a buffer.
//!
//! A string ends at its first zero byte, whatever follows: no string can end a message early or start another.

use bytes::BufMut;

use super::{
    ErrorFields, Format,
    backend::{self, FieldDescription, TransactionStatus},
    frontend::{self, Kind},
};

/// A buffer that grows: `Vec<u8>` and `BytesMut`.
pub(crate) trait Buffer: BufMut + AsMut<[u8]> {}

impl<B: BufMut + AsMut<[u8]>> Buffer for B {}

/// A message of any type, its body written by `body`.
pub(crate) fn message<B: Buffer>(out: &mut B, tag: u8, body: impl FnOnce(&mut B)) {
    out.put_u8(tag);
    packet(out, body);
}

/// A message whose body is at hand.
pub(crate) fn raw(out: &mut impl Buffer, tag: u8, body: &[u8]) {
    message(out, tag, |out| out.put_slice(body));
}

/// A message without a body.
pub(crate) fn bare(out: &mut impl Buffer, tag: u8) {
    raw(out, tag, &[]);
}

fn packet<B: Buffer>(out: &mut B, body: impl FnOnce(&mut B)) {
    let start = out.as_mut().len();
    out.put_u32(0);
    body(out);
    let written = out.as_mut();
    // A body beyond u32 can't be: no message that it is made of may reach 1 GiB.
    let length = u32::try_from(written.len() - start).unwrap_or(u32::MAX);
    if let Some(word) = written.get_mut(start..start + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

fn text(out: &mut impl Buffer, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.put_slice(text.get(..end).unwrap_or(text));
    out.put_u8(0);
}

fn value(out: &mut impl Buffer, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
            out.put_slice(value);
        }
        None => out.put_i32(-1),
    }
}

/// A count and what it counts; what is beyond the protocol's limit of 65535 is left out.
fn list<B: Buffer, T>(out: &mut B, items: &[T], mut item: impl FnMut(&mut B, &T)) {
    let count = u16::try_from(items.len()).unwrap_or(u16::MAX);
    out.put_u16(count);
    for one in items.iter().take(count.into()) {
        item(out, one);
    }
}

// What clients send.

/// StartupMessage of protocol 3. A parameter with an empty name would end the list and is left out.
pub(crate) fn startup<'a>(
    out: &mut impl Buffer,
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    packet(out, |out| {
        out.put_u16(3);
        out.put_u16(minor);
        for (name, setting) in parameters {
            if !name.is_empty() && !name.starts_with('\0') {
                text(out, name.as_bytes());
                text(out, setting.as_bytes());
            }
        }
        out.put_u8(0);
    });
}

/// SSLRequest.
pub(crate) fn ssl_request(out: &mut impl Buffer) {
    packet(out, |out| out.put_u32(super::startup::SSL_CODE));
}

/// CancelRequest.
pub(crate) fn cancel_request(out: &mut impl Buffer, process_id: u32, secret: &[u8]) {
    packet(out, |out| {
        out.put_u32(super::startup::CANCEL_CODE);
        out.put_u32(process_id);
        out.put_slice(secret);
    });
}

/// PasswordMessage.
pub(crate) fn password(out: &mut impl Buffer, password: &[u8]) {
    message(out, frontend::tag::PASSWORD, |out| text(out, password));
}

/// SASLInitialResponse.
pub(crate) fn sasl_initial_response(out: &mut impl Buffer, mechanism: &str, response: &[u8]) {
    message(out, frontend::tag::PASSWORD, |out| {
        text(out, mechanism.as_bytes());
        value(out, Some(response));
    });
}

/// SASLResponse.
pub(crate) fn sasl_response(out: &mut impl Buffer, response: &[u8]) {
    raw(out, frontend::tag::PASSWORD, response);
}

/// Query.
pub(crate) fn query(out: &mut impl Buffer, query: &[u8]) {
    message(out, frontend::tag::QUERY, |out| text(out, query));
}

/// Parse.
pub(crate) fn parse(out: &mut impl Buffer, name: &[u8], query: &[u8], parameter_types: &[u32]) {
    message(out, frontend::tag::PARSE, |out| {
        text(out, name);
        text(out, query);
        list(out, parameter_types, |out, oid| out.put_u32(*oid));
    });
}

/// Bind.
pub(crate) fn bind(
    out: &mut impl Buffer,
    portal: &[u8],
    statement: &[u8],
    parameter_formats: &[Format],
    parameters: &[Option<&[u8]>],
    result_formats: &[Format],
) {
    message(out, frontend::tag::BIND, |out| {
        text(out, portal);
        text(out, statement);
        list(out, parameter_formats, |out, format| out.put_u16(format.code()));
        list(out, parameters, |out, parameter| value(out, *parameter));
        list(out, result_formats, |out, format| out.put_u16(format.code()));
    });
}

/// Describe.
pub(crate) fn describe(out: &mut impl Buffer, kind: Kind, name: &[u8]) {
    target(out, frontend::tag::DESCRIBE, kind, name);
}

/// Close.
pub(crate) fn close(out: &mut impl Buffer, kind: Kind, name: &[u8]) {
    target(out, frontend::tag::CLOSE, kind, name);
}

fn target(out: &mut impl Buffer, tag: u8, kind: Kind, name: &[u8]) {
    message(out, tag, |out| {
        out.put_u8(kind.code());
        text(out, name);
    });
}

/// Execute; no row limit means all rows.
pub(crate) fn execute(out: &mut impl Buffer, portal: &[u8], max_rows: Option<u32>) {
    message(out, frontend::tag::EXECUTE, |out| {
        text(out, portal);
        out.put_u32(max_rows.unwrap_or(0));
    });
}

/// CopyFail.
pub(crate) fn copy_fail(out: &mut impl Buffer, reason: &str) {
    message(out, frontend::tag::COPY_FAIL, |out| text(out, reason.as_bytes()));
}

/// Sync.
pub(crate) fn sync(out: &mut impl Buffer) {
    bare(out, frontend::tag::SYNC);
}

/// Flush.
pub(crate) fn flush(out: &mut impl Buffer) {
    bare(out, frontend::tag::FLUSH);
}

/// Terminate.
pub(crate) fn terminate(out: &mut impl Buffer) {
    bare(out, frontend::tag::TERMINATE);
}

// What servers send.

/// AuthenticationOk.
pub(crate) fn authentication_ok(out: &mut impl Buffer) {
    message(out, backend::tag::AUTHENTICATION, |out| out.put_u32(0));
}

/// ParameterStatus.
pub(crate) fn parameter_status(out: &mut impl Buffer, name: &[u8], setting: &[u8]) {
    message(out, backend::tag::PARAMETER_STATUS, |out| {
        text(out, name);
        text(out, setting);
    });
}

/// BackendKeyData.
pub(crate) fn backend_key_data(out: &mut impl Buffer, process_id: u32, secret: &[u8]) {
    message(out, backend::tag::BACKEND_KEY_DATA, |out| {
        out.put_u32(process_id);
        out.put_slice(secret);
    });
}

/// NegotiateProtocolVersion, with the whole version as servers send it.
pub(crate) fn negotiate_protocol_version<S: AsRef<str>>(out: &mut impl Buffer, minor: u16, unknown: &[S]) {
    message(out, backend::tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u16(3);
        out.put_u16(minor);
        out.put_u32(u32::try_from(unknown.len()).unwrap_or(u32::MAX));
        for option in unknown {
            text(out, option.as_ref().as_bytes());
        }
    });
}

/// ReadyForQuery.
pub(crate) fn ready_for_query(out: &mut impl Buffer, status: TransactionStatus) {
    message(out, backend::tag::READY_FOR_QUERY, |out| out.put_u8(status.code()));
}

/// ErrorResponse.
pub(crate) fn error_response(out: &mut impl Buffer, fields: &ErrorFields<'_>) {
    error_fields(out, backend::tag::ERROR_RESPONSE, fields);
}

/// NoticeResponse.
pub(crate) fn notice_response(out: &mut impl Buffer, fields: &ErrorFields<'_>) {
    error_fields(out, backend::tag::NOTICE_RESPONSE, fields);
}

fn error_fields(out: &mut impl Buffer, tag: u8, fields: &ErrorFields<'_>) {
    message(out, tag, |out| {
        for (code, field) in fields.iter().filter(|(code, _)| *code != 0) {
            out.put_u8(code);
            text(out, field);
        }
        out.put_u8(0);
    });
}

/// NotificationResponse.
pub(crate) fn notification_response(out: &mut impl Buffer, process_id: u32, channel: &[u8], payload: &[u8]) {
    message(out, backend::tag::NOTIFICATION_RESPONSE, |out| {
        out.put_u32(process_id);
        text(out, channel);
        text(out, payload);
    });
}

/// RowDescription.
pub(crate) fn row_description(out: &mut impl Buffer, fields: &[FieldDescription<'_>]) {
    message(out, backend::tag::ROW_DESCRIPTION, |out| {
        list(out, fields, |out, field| {
            text(out, field.name.as_bytes());
            out.put_u32(field.table_oid);
            out.put_i16(field.column);
            out.put_u32(field.type_oid);
            out.put_i16(field.type_length);
            out.put_i32(field.type_modifier);
            out.put_u16(field.format.code());
        });
    });
}

/// ParameterDescription.
pub(crate) fn parameter_description(out: &mut impl Buffer, types: &[u32]) {
    message(out, backend::tag::PARAMETER_DESCRIPTION, |out| {
        list(out, types, |out, oid| out.put_u32(*oid));
    });
}

/// DataRow.
pub(crate) fn data_row(out: &mut impl Buffer, values: &[Option<&[u8]>]) {
    message(out, backend::tag::DATA_ROW, |out| list(out, values, |out, one| value(out, *one)));
}

/// CommandComplete.
pub(crate) fn command_complete(out: &mut impl Buffer, tag: &[u8]) {
    message(out, backend::tag::COMMAND_COMPLETE, |out| text(out, tag));
}
