//! From a StartupMessage to a session: decided, signed in upstream, greeted.

use std::sync::Arc;

use tidegate_gate::{
    Gate, Login, Outcome, Refusal, ServeError,
    policy::{Item, Lineage, Shape, Value},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    PostgresServer,
    cancel::{CancelKey, Interrupt, Target},
    session::{Place, Session, sqlstate},
    shown::error_fields,
    sql,
    startup::{self, ClientStream, Start},
    upstream::{self, SignedIn, UpstreamStream},
    wire::{ErrorFields, fields::code, write},
};

/// The client's parameters that are not passed on: who signs in is the gate's matter, and so is the text's encoding.
const OWN: [&str; 5] = ["user", "client_encoding", "standard_conforming_strings", "options", "replication"];

/// What came of a StartupMessage.
pub(crate) enum Opened {
    /// A session.
    Session(Box<Session>),
    /// A stream that nothing can be masked in, and the greeting that comes first.
    Replication(ClientStream, (UpstreamStream, Vec<u8>), Vec<u8>),
    /// Nothing: the client was told why not.
    Refused,
}

/// Opens a session.
pub(crate) async fn open(server: &PostgresServer, start: Start, gate: &Gate) -> Result<Opened, ServeError> {
    let mut client = start.io;
    let parameters = Parameters::of(&start.parameters);
    if let Err(why) = &parameters.safe {
        gate.refuse("login", &parameters.text(), why);
        tell(&mut client, &ErrorFields::new("FATAL", "22023", why)).await;
        return Ok(Opened::Refused);
    }
    let login = Login { name: "login", shape: Arc::new(parameters.shape()), text: parameters.text() };
    let mut early = Vec::new();
    let admitted = tokio::select! {
        admitted = gate.admit(login) => admitted,
        left = leaves(&mut client, &mut early) => return Err(left),
        over = gate.over() => Err(over),
    };
    let (upstream, permit) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            tell(&mut client, &refused(&refusal)).await;
            return Ok(Opened::Refused);
        }
    };
    if parameters.replication.is_some() && permit.verdict().content.is_some() {
        let why = "replication is refused where content is masked";
        gate.refuse("login", &parameters.text(), why);
        tell(&mut client, &ErrorFields::new("FATAL", "42501", why)).await;
        return Ok(Opened::Refused);
    }
    let address = upstream.address;
    let user = upstream.credential.user.clone().unwrap_or_else(|| parameters.user.as_str().into());
    let passed = parameters.passed();
    let signed_in = match upstream::sign_in(
        upstream.stream,
        &server.settings,
        &upstream.credential,
        &user,
        &passed,
    )
    .await
    {
        Ok(signed_in) => signed_in,
        Err(error) => {
            let fields = shown(gate, error.for_client(gate.resource(), &gate.ask_who_runs_it()));
            permit.done(&Outcome { error: Some(error_code(&fields)), ..Outcome::default() });
            tell(&mut client, &fields).await;
            return Err(error.into());
        }
    };
    permit.done(&Outcome::default());
    tracing::debug!(user = %user, minor = signed_in.minor, tls = signed_in.io.is_tls(), "signed in upstream");
    let interrupt = Interrupt::default();
    let key = signed_in.key.as_ref();
    let target = Target {
        address,
        process_id: key.map_or(0, |key| key.process_id),
        secret: key.map_or_else(|| Arc::from([]), |key| Arc::from(&*key.secret)),
        uid: gate.principal().process.uid,
        session: gate.session().clone(),
        interrupt: interrupt.clone(),
    };
    let length = if start.version.has_long_secrets() { 32 } else { 4 };
    let Some(cancel_key) = server.cancel_keys.register(target, length) else {
        return Err(ServeError::Gate("no randomness for a cancel key".into()));
    };
    let mut greeting = Vec::new();
    start.version.negotiate(&mut greeting);
    greet(&mut greeting, &signed_in, &cancel_key, gate);
    let upstream = (signed_in.io, signed_in.leftover.to_vec());
    if parameters.replication.is_some() {
        return Ok(Opened::Replication(client, upstream, greeting));
    }
    let database = server.database(&parameters.database);
    let settings = parameters.settings();
    let place = Place { database, user, settings, interrupt };
    let session = Session::new(gate.clone(), (client, &early), upstream, place, cancel_key, &greeting);
    Ok(Opened::Session(Box::new(session)))
}

/// What the client asked for, in the order it did.
struct Parameters<'a> {
    all: &'a [(String, String)],
    user: String,
    database: String,
    /// As the client wrote it: `true`, or `database`.
    replication: Option<String>,
    settings: Vec<(String, String)>,
    safe: Result<(), String>,
}

impl<'a> Parameters<'a> {
    fn of(all: &'a [(String, String)]) -> Self {
        let last = |name: &str| startup::last(all, name).map(str::to_owned);
        let user = last("user").unwrap_or_default();
        let database = last("database").filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
        let replication = last("replication").filter(|value| !is_no(value));
        let options = sql::settings_of_options(&last("options").unwrap_or_default());
        let safe = check(all, &options);
        Self { all, user, database, replication, settings: options.unwrap_or_default(), safe }
    }

    /// What the policy decides on.
    fn shape(&self) -> Shape {
        let login = Item {
            fields: vec![
                ("action", Value::Word("login")),
                ("database", Value::Text(self.database.as_str().into())),
                ("user", Value::Text(self.user.as_str().into())),
            ],
            must_name: None,
        };
        let mut shape = Shape { items: vec![login], ..Shape::default() };
        if self.sets_role() {
            shape.items.push(statement("set-role"));
        }
        if self.replication.is_some() {
            shape.items.push(statement("replication"));
            let untraced = Some("replication carries whole tables".into());
            shape.results.push(Lineage { untraced, ..Lineage::default() });
        }
        shape
    }

    /// Whether another role than the gate's user is asked for from the start.
    fn sets_role(&self) -> bool {
        self.all.iter().chain(&self.settings).any(|(name, _)| sql::is_role(name))
    }

    fn text(&self) -> String {
        let application = startup::last(self.all, "application_name").unwrap_or_default();
        format!("user={} database={} application_name={application}", self.user, self.database)
    }

    /// The settings among them.
    fn settings(&self) -> Vec<(String, String)> {
        let named = self.all.iter().filter(|(name, _)| !OWN.contains(&name.as_str()) && name != "database");
        named.chain(&self.settings).cloned().collect()
    }

    /// What the server is told.
    fn passed(&self) -> Vec<(String, String)> {
        let mut passed: Vec<_> = self
            .all
            .iter()
            .filter(|(name, _)| !OWN.contains(&name.as_str()) && name != "database")
            .cloned()
            .collect();
        passed.push(("database".into(), self.database.clone()));
        passed.push(("client_encoding".into(), "UTF8".into()));
        // Whatever the role or the database sets: the gate reads strings this way.
        passed.push(("standard_conforming_strings".into(), "on".into()));
        passed.extend(self.replication.iter().map(|value| ("replication".to_owned(), value.clone())));
        passed.extend(self.settings.iter().cloned());
        passed
    }
}

/// A statement in a startup parameter's clothes.
fn statement(kind: &'static str) -> Item {
    Item {
        fields: vec![("action", Value::Word("statement")), ("statement", Value::Word(kind))],
        must_name: None,
    }
}

/// Whether the settings leave the gate able to read what the server reads.
fn check(all: &[(String, String)], options: &Result<Vec<(String, String)>, String>) -> Result<(), String> {
    let options = options.as_ref().map_err(Clone::clone)?;
    for (name, value) in all.iter().filter(|(name, _)| name != "options").chain(options) {
        sql::setting_is_safe(name, value).map_err(str::to_owned)?;
    }
    Ok(())
}

/// As the server reads booleans.
fn is_no(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "" | "0" | "off" | "of" | "no" | "n" | "false" | "f" | "fals" | "fal" | "fa"
    )
}

/// What the client hears once the gate is signed in: the server's own words, and a cancel key of the gate's.
fn greet(out: &mut Vec<u8>, signed_in: &SignedIn, key: &CancelKey, gate: &Gate) {
    write::authentication_ok(out);
    for notice in &signed_in.notices {
        write::notice_response(out, &shown(gate, notice.clone()));
    }
    for (name, value) in &signed_in.parameters {
        write::parameter_status(out, name, value);
    }
    write::backend_key_data(out, key.process_id(), key.secret());
    write::ready_for_query(out, signed_in.status);
}

/// What the server says during the sign-in, under every mask of whoever signs in: an event trigger of the login may have
/// worded it.
fn shown<'a>(gate: &Gate, fields: ErrorFields<'a>) -> ErrorFields<'a> {
    let masks = gate.standing_masks();
    error_fields(fields, masks.content.as_deref(), false, masks.columns, gate.masker())
}

fn refused(refusal: &Refusal) -> ErrorFields<'static> {
    let fields = ErrorFields::new("FATAL", sqlstate(refusal.cause), &refusal.message).into_owned();
    match &refusal.hint {
        Some(hint) => fields.with(code::HINT, hint.to_string()),
        None => fields,
    }
}

fn error_code(fields: &ErrorFields<'_>) -> String {
    String::from_utf8_lossy(fields.get(code::SQLSTATE).unwrap_or_default()).into_owned()
}

/// Resolves when the client leaves, for which it may have reason: a sign-in may wait for a person. What it says
/// meanwhile is kept.
async fn leaves(client: &mut ClientStream, early: &mut Vec<u8>) -> ServeError {
    /// A client has nothing to say before it is greeted.
    const MOST: usize = 16 * 1024;
    loop {
        match client.read_buf(early).await {
            Ok(0) | Err(_) => return ServeError::Client("it left before it was signed in".into()),
            Ok(_) if early.len() > MOST => {
                return ServeError::Client("it says too much before it is signed in".into());
            }
            Ok(_) => {}
        }
    }
}

/// Tells the client why there is no session. One that is gone already can't be told.
async fn tell(client: &mut ClientStream, fields: &ErrorFields<'_>) {
    let mut message = Vec::new();
    write::error_response(&mut message, fields);
    if client.write_all(&message).await.is_ok() {
        let _ = client.shutdown().await;
    }
}
