//! The seam to the desk where people are asked.

use std::sync::Arc;

use tidegate_approvals::{
    Desk, Limits,
    store::{Postgres, Settings, Sqlite, Store, StoreError},
};
use tidegate_gate::Credentials;
use tokio_postgres::config::SslMode;

use crate::{
    config::{self, Config},
    error::Error,
};

/// Opens this host's desk: on the fleet's database where the configuration names one, else on a file of its own.
pub(crate) async fn open(config: &Config, credentials: &dyn Credentials, host: &str) -> Result<Desk, Error> {
    let failed = |error: StoreError| Error::Approvals(error.to_string());
    let store: Arc<dyn Store> = match &config.approvals.database {
        Some(database) => {
            let settings = settings(database, credentials).await?;
            Arc::new(Postgres::open(settings).await.map_err(failed)?)
        }
        None => Arc::new(Sqlite::open(&config.state.join("approvals.db")).map_err(failed)?),
    };
    let config::Approvals { questions, questions_per_principal, .. } = config.approvals;
    let limits = Limits { all: questions, of_principal: questions_per_principal };
    Ok(Desk::open(host, store, limits, false))
}

/// User and password are never in the configuration.
async fn settings(database: &config::Database, credentials: &dyn Credentials) -> Result<Settings, Error> {
    let failed = |why: &dyn ToString| Error::Approvals(why.to_string());
    let mut connection: tokio_postgres::Config =
        database.connection.parse().map_err(|error| failed(&format!("`database.connection`: {error}")))?;
    if connection.get_password().is_some() {
        return Err(failed(&"`database.connection` holds a password: put it into the credential's file"));
    }
    // By default it would be content without TLS where the server offers none.
    if connection.get_ssl_mode() == SslMode::Prefer {
        connection.ssl_mode(SslMode::Require);
    }
    let credential = credentials.credential(&database.credential).await.map_err(|error| failed(&error))?;
    if let Some(user) = &credential.user {
        connection.user(&**user);
    }
    if let Some(password) = &credential.password {
        connection.password(password.expose());
    }
    Ok(Settings { connection, ca: database.ca.clone() })
}
