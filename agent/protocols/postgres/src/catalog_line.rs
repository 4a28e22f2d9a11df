//! The gate's own connection to a database, for questions about its catalog.

use std::{fmt, time::Duration};

use bytes::BytesMut;
use thiserror::Error;
use tidegate_gate::Gate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    sql,
    upstream::{self, UpstreamSettings, UpstreamStream},
    wire::{
        self, ErrorFields, HEADER_BYTES,
        backend::{DataRow, tag},
        write,
    },
};

/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the connection is opened with. No `options`: poolers take none.
const PARAMETERS: [(&str, &str); 3] = [
    ("application_name", "tidegate catalog"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
];

/// Why a question has no answer.
#[derive(Debug, Error)]
pub(crate) enum Unanswered {
    /// The server's own error: the connection goes on.
    #[error("{0}")]
    Refused(String),
    /// The connection is of no more use.
    #[error("{0}")]
    Lost(String),
}

/// The gate's own connection to a database.
pub(crate) struct CatalogLine {
    stream: UpstreamStream,
    buffer: BytesMut,
}

impl fmt::Debug for CatalogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogLine").finish_non_exhaustive()
    }
}

impl CatalogLine {
    /// Connects with the credential of a session that was admitted.
    pub(crate) async fn open(
        gate: &Gate,
        settings: &UpstreamSettings,
        database: &str,
    ) -> Result<Self, String> {
        let upstream = gate.consult().await.map_err(|refusal| refusal.message.to_string())?;
        let mut parameters: Vec<_> =
            PARAMETERS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        parameters.push(("database".to_owned(), database.to_owned()));
        let user = upstream.credential.user.as_deref().unwrap_or_default();
        let signed_in = upstream::sign_in(
            upstream.stream,
            || upstream::again(gate),
            settings,
            &upstream.credential,
            user,
            &parameters,
        )
        .await
        .map_err(|error| error.to_string())?;
        Ok(Self { stream: signed_in.io, buffer: signed_in.leftover })
    }

    /// Asks one question whose answer is one column of text.
    pub(crate) async fn query(
        &mut self,
        query: &str,
        parameters: &[&str],
    ) -> Result<Vec<String>, Unanswered> {
        match tokio::time::timeout(PATIENCE, self.ask(query, parameters)).await {
            Ok(Ok(answer)) => answer.map_err(Unanswered::Refused),
            Ok(Err(lost)) => Err(Unanswered::Lost(lost)),
            Err(_) => Err(Unanswered::Lost(format!("the server has not answered within {PATIENCE:?}"))),
        }
    }

    /// The answer, or the server's error in its place.
    async fn ask(&mut self, query: &str, parameters: &[&str]) -> Result<Result<Vec<String>, String>, String> {
        let parameters: Vec<_> = parameters.iter().map(|parameter| Some(parameter.as_bytes())).collect();
        let mut messages = Vec::new();
        // One transaction, up to the Sync.
        for (query, parameters) in [(sql::SETUP, &[][..]), (query, &parameters)] {
            write::parse(&mut messages, b"", query.as_bytes(), &[]);
            write::bind(&mut messages, b"", b"", &[], parameters, &[]);
            write::execute(&mut messages, b"", None);
        }
        write::sync(&mut messages);
        self.stream.write_all(&messages).await.map_err(|error| error.to_string())?;
        self.stream.flush().await.map_err(|error| error.to_string())?;
        let (mut rows, mut failed, mut length, mut is_set_up) = (Vec::new(), None, 0, false);
        loop {
            let (kind, body) = self.next().await?;
            length += body.len();
            if length > LONGEST {
                return Err("its answer is too long".into());
            }
            match kind {
                tag::DATA_ROW if is_set_up => rows.push(value(&body)?),
                tag::COMMAND_COMPLETE => is_set_up = true,
                tag::ERROR_RESPONSE => {
                    failed = Some(ErrorFields::parse(&body).map_err(|error| error.to_string())?.summary());
                }
                tag::READY_FOR_QUERY => return Ok(failed.map_or(Ok(rows), Err)),
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> Result<(u8, BytesMut), String> {
        loop {
            if let Some(header) = wire::header(&self.buffer).map_err(|error| error.to_string())? {
                let size = header.size();
                if size > LONGEST {
                    return Err("its answer is too long".into());
                }
                if self.buffer.len() >= size {
                    return Ok((header.tag, self.buffer.split_to(size).split_off(HEADER_BYTES)));
                }
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// The value of a row's one column.
fn value(body: &[u8]) -> Result<String, String> {
    let mut row = DataRow::parse(body).map_err(|error| error.to_string())?;
    let first = row.next().ok_or("a row without a column")?.map_err(|error| error.to_string())?;
    String::from_utf8(first.unwrap_or_default().to_vec()).map_err(|_| "its answer is not UTF-8".into())
}
