//! Every parser over any bytes: what the fuzzer and the corpus test run.

use super::{
    ErrorFields, HEADER_BYTES, Text,
    backend::{self, Authentication, BackendKeyData, CommandComplete, DataRow, TransactionStatus},
    frontend::{self, Bind, BindNames, Execute, FunctionCall, Parse, SaslInitialResponse, Target},
    header, startup, write,
};

/// Reads the bytes as a startup packet, and as a stream of messages of either side.
///
/// # Panics
/// If a parser breaks its word; that is what it is for.
pub(crate) fn tour(bytes: &[u8]) {
    if let Ok(Some((_, used))) = startup(bytes) {
        assert!(used <= bytes.len(), "a startup packet ends within the bytes");
    }
    let mut rest = bytes;
    while let Ok(Some(header)) = header(rest) {
        let Some(body) = rest.get(HEADER_BYTES..).and_then(|rest| rest.get(..header.length)) else { break };
        frontend(header.tag, body);
        backend(header.tag, body);
        rest = rest.get(header.size()..).unwrap_or_default();
    }
}

fn frontend(tag: u8, body: &[u8]) {
    let _ = frontend::largest_body(tag);
    match tag {
        frontend::tag::QUERY => {
            let _ = frontend::query(body).and_then(Text::to_str);
        }
        frontend::tag::PARSE => {
            if let Ok(parse) = Parse::parse(body) {
                let types: Vec<u32> = parse.parameter_types.iter().collect();
                let (name, query) = (parse.name.as_bytes(), parse.query.as_bytes());
                same(tag, body, |out| write::parse(out, name, query, &types));
            }
        }
        frontend::tag::BIND => bind(body),
        frontend::tag::DESCRIBE | frontend::tag::CLOSE => {
            if let Ok(Target { kind, name }) = Target::parse(body) {
                let writer = if tag == frontend::tag::CLOSE { write::close } else { write::describe };
                same(tag, body, |out| writer(out, kind, name.as_bytes()));
            }
        }
        frontend::tag::EXECUTE => {
            let _ = Execute::parse(body);
        }
        frontend::tag::FUNCTION_CALL => {
            if let Ok(call) = FunctionCall::parse(body) {
                assert_eq!(call.arguments.iter().count(), call.arguments.len());
            }
        }
        frontend::tag::PASSWORD => {
            let _ = (frontend::password(body), SaslInitialResponse::parse(body));
        }
        _ => {
            let _ = (frontend::copy_fail(body), frontend::empty(body));
        }
    }
}

fn bind(body: &[u8]) {
    let Ok(bind) = Bind::parse(body) else { return };
    assert_eq!(BindNames::parse(body), Some(bind.names));
    let parameters: Vec<_> = bind.parameters.iter().collect();
    assert_eq!(parameters.len(), bind.parameters.len());
    let formats: Vec<_> = bind.parameter_formats.iter().collect();
    let results: Vec<_> = bind.result_formats.iter().collect();
    let (portal, statement) = (bind.names.portal.as_bytes(), bind.names.statement.as_bytes());
    same(frontend::tag::BIND, body, |out| {
        write::bind(out, portal, statement, &formats, &parameters, &results);
    });
}

fn backend(tag: u8, body: &[u8]) {
    match tag {
        backend::tag::AUTHENTICATION => {
            let _ = Authentication::parse(body);
        }
        backend::tag::PARAMETER_STATUS => {
            if let Ok(status) = backend::ParameterStatus::parse(body) {
                let (name, value) = (status.name.as_bytes(), status.value.as_bytes());
                same(tag, body, |out| write::parameter_status(out, name, value));
            }
        }
        backend::tag::BACKEND_KEY_DATA => {
            if let Ok(key) = BackendKeyData::parse(body) {
                same(tag, body, |out| write::backend_key_data(out, key.process_id, key.secret));
            }
        }
        backend::tag::READY_FOR_QUERY => {
            if let Ok(status) = TransactionStatus::parse(body) {
                same(tag, body, |out| write::ready_for_query(out, status));
            }
        }
        backend::tag::ROW_DESCRIPTION => {
            if let Ok(fields) = backend::row_description(body) {
                same(tag, body, |out| write::row_description(out, &fields));
            }
        }
        backend::tag::PARAMETER_DESCRIPTION => {
            if let Ok(types) = backend::parameter_description(body) {
                same(tag, body, |out| write::parameter_description(out, &types.iter().collect::<Vec<_>>()));
            }
        }
        backend::tag::DATA_ROW => data_row(body),
        backend::tag::COMMAND_COMPLETE => {
            let _ = CommandComplete::parse(body).map(CommandComplete::rows);
        }
        backend::tag::ERROR_RESPONSE | backend::tag::NOTICE_RESPONSE => {
            if let Ok(fields) = ErrorFields::parse(body) {
                let error = tag == backend::tag::ERROR_RESPONSE;
                same(tag, body, |out| match error {
                    true => write::error_response(out, &fields),
                    false => write::notice_response(out, &fields),
                });
            }
        }
        backend::tag::NEGOTIATE_PROTOCOL_VERSION => {
            let _ = backend::NegotiateProtocolVersion::parse(body);
        }
        backend::tag::NOTIFICATION_RESPONSE => {
            if let Ok(sent) = backend::Notification::parse(body) {
                let (channel, payload) = (sent.channel.as_bytes(), sent.payload.as_bytes());
                same(tag, body, |out| write::notification_response(out, sent.process_id, channel, payload));
            }
        }
        _ => {
            let _ = (backend::CopyResponse::parse(body), backend::function_call_response(body));
        }
    }
}

fn data_row(body: &[u8]) {
    let Ok(row) = DataRow::parse(body) else { return };
    assert!(row.clone().count() <= row.columns() + 1, "a row ends at its first error");
    if let Ok(values) = row.collect::<Result<Vec<_>, _>>() {
        same(backend::tag::DATA_ROW, body, |out| write::data_row(out, &values));
    }
}

/// What was understood, written again, gives the same bytes: nothing was overlooked.
fn same(tag: u8, body: &[u8], writer: impl FnOnce(&mut Vec<u8>)) {
    let (mut expected, mut written) = (Vec::new(), Vec::new());
    write::raw(&mut expected, tag, body);
    writer(&mut written);
    assert_eq!(written, expected, "a message of type {:?} reads and writes the same", char::from(tag));
}
