//! Replication, where a rule spells it out: the stream passes as it is, since nothing in it could be masked.

use tidegate_gate::{Gate, ServeError};
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use crate::{startup::ClientStream, upstream::UpstreamStream};

/// Passes everything both ways until either side ends, or the session may no longer exist.
pub(crate) async fn relay(
    mut client: ClientStream,
    (mut server, leftover): (UpstreamStream, Vec<u8>),
    gate: Gate,
    greeting: Vec<u8>,
) -> Result<(), ServeError> {
    client.write_all(&greeting).await.map_err(|error| ServeError::Client(error.to_string()))?;
    client.write_all(&leftover).await.map_err(|error| ServeError::Client(error.to_string()))?;
    client.flush().await.map_err(|error| ServeError::Client(error.to_string()))?;
    drop((greeting, leftover));
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut server) => {
            copied.map(drop).map_err(|error| ServeError::Upstream(error.to_string()))
        }
        refusal = gate.revoked() => Err(ServeError::Policy(refusal.message.to_string())),
    }
}
