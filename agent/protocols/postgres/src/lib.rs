//! The PostgreSQL protocol, versions 3.0 and 3.2.

#![forbid(unsafe_code)]

mod cancel;
mod catalog_line;
mod database;
mod databases;
mod definitions;
mod dialect;
mod opening;
mod options;
mod replication;
mod session;
mod shown;
mod sql;
mod startup;
mod upstream;
mod wire;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tidegate_gate::{
    BoxFuture, ClientIo, ConfigError, Gate, Login, Matter, Outcome, Protocol, ServeError, Server,
    policy::{Item, Misread, Resource, Shape, Value, Vocabulary},
};

use self::{
    cancel::CancelKeys,
    database::Database,
    databases::{Databases, Location},
    opening::Opened,
    options::Options,
    sql::Fault,
    startup::{Accepted, accept},
    upstream::UpstreamSettings,
};

/// How many databases of one resource are remembered while nobody is in them.
const DATABASES: usize = 256;

/// The protocol. One for the agent's life: cancel requests find sessions, and changes of definitions concern them, across
/// reloads of the bundle.
#[derive(Debug, Default)]
pub struct Postgres {
    cancel_keys: Arc<CancelKeys>,
    databases: Arc<Databases>,
}

impl Postgres {
    /// The protocol, with no session yet.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What [`shape_of_sql`] supposes, for whoever reads what was decided on it.
pub const SUPPOSED: &str = "each relation is supposed to be a table, of schema public where none is written, with the columns \
                            that the text names. The gate asks the database's catalog.";

/// The shape of a statement as far as its text alone tells. Without a catalog, each relation is supposed to be a table
/// (in schema `public` where the text writes none) whose columns are whatever the text names, and each function a
/// built-in one, harmless unless its name is known for another.
pub fn shape_of_sql(resource: &Resource, text: &str) -> Result<Shape, Misread> {
    let limits = Options::of(resource).map_err(|error| error.message)?.limits();
    sql::shape_of(text, &limits).map_err(|not| match not.fault {
        Fault::Syntax => Misread::Malformed(not.reason),
        Fault::TooManyOutputs | Fault::Bounds | Fault::Tangled => Misread::Refused(not.reason),
    })
}

impl Protocol for Postgres {
    fn vocabulary(&self) -> &'static Vocabulary {
        &sql::VOCABULARY
    }

    fn configure(&self, resource: &Arc<Resource>) -> Result<Arc<dyn Server>, ConfigError> {
        if resource.credential.is_none() {
            return Err(ConfigError::new("it names no credential to sign in with"));
        }
        if resource.identity.is_some() {
            return Err(ConfigError::new(
                "identity: PostgreSQL has no sign-in in the name that an issuer says one has",
            ));
        }
        let options = Options::of(resource)?;
        Ok(Arc::new(PostgresServer {
            settings: Arc::new(UpstreamSettings::new(resource, &options)?),
            options,
            resource: resource.name.clone(),
            cancel_keys: self.cancel_keys.clone(),
            databases: self.databases.clone(),
            known: Mutex::default(),
        }))
    }
}

/// Serves one resource.
#[derive(Debug)]
struct PostgresServer {
    options: Options,
    settings: Arc<UpstreamSettings>,
    resource: Arc<str>,
    cancel_keys: Arc<CancelKeys>,
    databases: Arc<Databases>,
    known: Mutex<HashMap<Location, Arc<Database>>>,
}

impl Server for PostgresServer {
    fn serve(self: Arc<Self>, client: ClientIo, gate: Gate) -> BoxFuture<'static, Result<(), ServeError>> {
        Box::pin(async move {
            match accept(client).await? {
                Accepted::Cancel { process_id, secret } => self.cancel(process_id, &secret, &gate).await,
                // Boxed: what start-up needs is given back before the session runs.
                Accepted::Start(start) => match Box::pin(opening::open(&self, start, &gate)).await? {
                    Opened::Session(session) => {
                        drop((self, gate));
                        session.run().await
                    }
                    Opened::Replication(replication) => {
                        drop((self, gate));
                        replication.run().await
                    }
                    Opened::Refused => Ok(()),
                },
            }
        })
    }
}

impl PostgresServer {
    /// Passes a cancel request on to the upstream of the session that it means, if a rule allows that. The key is the
    /// proof, as it is for a server, and only the session's own account may show it. No answer is owed.
    async fn cancel(&self, process_id: u32, secret: &[u8], gate: &Gate) -> Result<(), ServeError> {
        let Some(target) = self.cancel_keys.find(process_id, secret, gate.principal().process.uid) else {
            gate.event("cancel-unknown", "a cancel request that fits no session of this account");
            return Ok(());
        };
        // What waits for a person runs nowhere: nothing need be allowed to take it back.
        if target.interrupt.fire() {
            gate.event("cancel-held", &format!("session {}", target.session));
            return Ok(());
        }
        let item = Item { fields: vec![("action", Value::Word("cancel"))], must_name: None };
        let shape = Arc::new(Shape { items: vec![item], ..Shape::default() });
        let text = format!("session {}", target.session);
        let matter = Matter::new(text.as_bytes());
        let wish = Login { name: "cancel", shape, text, matter, count: 0 };
        let Ok((upstream, permit)) = gate.admit(wish).await else { return Ok(()) };
        if upstream.address != target.address {
            gate.event("cancel-elsewhere", "the session to cancel is at another address of the resource");
            return Ok(());
        }
        let again = || upstream::again(gate);
        upstream::cancel(upstream.stream, again, &self.settings, target.process_id, &target.secret).await?;
        permit.done(&Outcome::default());
        Ok(())
    }

    /// One of the resource's databases.
    fn database(&self, address: SocketAddr, name: &str) -> Arc<Database> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place: Location = (address, name.into());
        if let Some(database) = known.get(&place) {
            return database.clone();
        }
        if known.len() >= DATABASES {
            known.retain(|_, database| Arc::strong_count(database) > 1);
        }
        let facts = self.databases.find(address, &place.1, &self.resource);
        let (settings, limits) = (self.settings.clone(), self.options.limits());
        let age = self.options.catalog_age();
        let database = Arc::new(Database::new(place.1.clone(), settings, limits, age, facts));
        known.insert(place, database.clone());
        database
    }
}

/// Every parser of the wire format over any bytes: what the fuzzer runs.
///
/// # Panics
/// If a parser breaks its word.
#[cfg(feature = "fuzzing")]
pub fn fuzz_wire(bytes: &[u8]) {
    wire::tour::tour(bytes);
}
