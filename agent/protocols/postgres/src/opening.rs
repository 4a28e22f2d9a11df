//! From a StartupMessage to a session: decided, signed in upstream, greeted.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use tidegate_gate::{
    Gate, Login, Matter, Outcome, Permit, Refusal, ServeError, Upstream,
    policy::{Item, Lineage, Shape, Value},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    PostgresServer,
    cancel::{CancelKey, Interrupt, Target},
    dialect::Dialect,
    replication::{self, Replication},
    session::{Place, STANDBY, Session, sqlstate},
    shown::error_fields,
    sql,
    startup::{self, ClientStream, Start},
    upstream::{self, SignedIn},
    wire::{ErrorFields, fields::code, write},
};

/// The client's parameters that are not passed on: who signs in is the gate's matter, and so is the text's encoding.
const OWN: [&str; 5] = ["user", "client_encoding", "standard_conforming_strings", "options", "replication"];

/// What came of a StartupMessage.
pub(crate) enum Opened {
    /// A session.
    Session(Box<Session>),
    /// A stream in which nothing is decided.
    Replication(Box<Replication>),
    /// Nothing: the client was told why not.
    Refused,
}

/// Opens a session.
pub(crate) async fn open(server: &PostgresServer, start: Start, gate: &Gate) -> Result<Opened, ServeError> {
    let mut client = start.io;
    let parameters = Parameters::of(&start.parameters);
    let shape = Arc::new(parameters.shape());
    let login =
        Login { name: "login", shape, text: parameters.text(), matter: parameters.matter(), count: 1 };
    if let Some((code, why)) = parameters.objection(gate, &login.shape) {
        gate.refuse("login", &parameters.text(), &why);
        tell(&mut client, &ErrorFields::new("FATAL", code, &why)).await;
        return Ok(Opened::Refused);
    }
    let mut early = Vec::new();
    let Some((upstream, permit)) = admitted(&mut client, &mut early, login, gate).await? else {
        return Ok(Opened::Refused);
    };
    let address = upstream.address;
    let user = upstream.credential.user.clone().unwrap_or_else(|| parameters.user.as_str().into());
    let passed = parameters.passed();
    let signing_in = upstream::sign_in(
        upstream.stream,
        || upstream::again(gate),
        &server.settings,
        &upstream.credential,
        &user,
        &passed,
    );
    let Some(signed_in) = signed_in(signing_in.await, &mut client, permit, gate).await? else {
        return Ok(Opened::Refused);
    };
    tracing::debug!(user = %user, minor = signed_in.minor, tls = signed_in.io.is_tls(), "signed in upstream");
    let interrupt = Interrupt::default();
    let target = target(&signed_in, address, gate, interrupt.clone());
    let length = if start.version.has_long_secrets() { 32 } else { 4 };
    let Some(cancel_key) = server.cancel_keys.register(target, length) else {
        return Err(ServeError::Gate("no randomness for a cancel key".into()));
    };
    let mut greeting = Vec::new();
    start.version.negotiate(&mut greeting);
    greet(&mut greeting, &signed_in, &cancel_key, gate);
    if parameters.replication.is_some() {
        greeting.extend_from_slice(&signed_in.leftover);
        let (gate, server) = (gate.clone(), signed_in.io);
        let replication = Replication { gate, client, early, server, greeting, cancel_key };
        return Ok(Opened::Replication(Box::new(replication)));
    }
    let database = server.database(address, &parameters.database);
    let settings = parameters.settings();
    let standby =
        signed_in.parameters.iter().any(|(name, value)| name == STANDBY.as_bytes() && value == b"on");
    let dialect = Dialect::of(&signed_in.parameters);
    let place = Place { database, user, settings, interrupt, standby, dialect };
    let upstream = (signed_in.io, signed_in.leftover.to_vec());
    let session = Session::new(gate.clone(), (client, &early), upstream, place, cancel_key, &greeting);
    Ok(Opened::Session(Box::new(session)))
}

/// Has the sign-in decided. None: it is refused, and the client was told. What the client says meanwhile goes to `early`.
async fn admitted(
    client: &mut ClientStream,
    early: &mut Vec<u8>,
    login: Login,
    gate: &Gate,
) -> Result<Option<(Upstream, Permit)>, ServeError> {
    let admitted = tokio::select! {
        admitted = gate.admit(login) => admitted,
        left = leaves(client, early) => return Err(left),
        over = gate.over() => Err(over),
    };
    match admitted {
        Ok(admitted) => Ok(Some(admitted)),
        Err(refusal) => {
            tell(client, &refused(&refusal)).await;
            Ok(None)
        }
    }
}

/// What became of signing in upstream, as the record and, where nothing did, the client hear of it. None: nothing begins.
async fn signed_in(
    signed_in: Result<SignedIn, upstream::SignInError>,
    client: &mut ClientStream,
    permit: Permit,
    gate: &Gate,
) -> Result<Option<SignedIn>, ServeError> {
    let failed = |fields: &ErrorFields<'_>| Outcome { error: Some(error_code(fields)), ..Outcome::default() };
    match signed_in {
        Ok(signed_in) => {
            match Dialect::of(&signed_in.parameters).objection().filter(|_| gate.standing_masks().columns) {
                None => {
                    permit.done(&Outcome::default());
                    Ok(Some(signed_in))
                }
                Some(why) => {
                    let fields = ErrorFields::new("FATAL", "0A000", &why);
                    permit.done(&failed(&fields));
                    tell(client, &fields).await;
                    Ok(None)
                }
            }
        }
        Err(error) => {
            let fields = shown(gate, error.for_client(gate.resource(), &gate.ask_who_runs_it()));
            permit.done(&failed(&fields));
            tell(client, &fields).await;
            Err(error.into())
        }
    }
}

/// What a cancel request for this session is passed on to.
fn target(signed_in: &SignedIn, address: SocketAddr, gate: &Gate, interrupt: Interrupt) -> Target {
    let key = signed_in.key.as_ref();
    Target {
        address,
        process_id: key.map_or(0, |key| key.process_id),
        secret: key.map_or_else(|| Arc::from([]), |key| Arc::from(&*key.secret)),
        uid: gate.principal().process.uid,
        session: gate.session().clone(),
        interrupt,
    }
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

    /// Why there is no such session whatever rules say, as SQLSTATE and text.
    fn objection(&self, gate: &Gate, shape: &Arc<Shape>) -> Option<(&'static str, Cow<'_, str>)> {
        if let Err(why) = &self.safe {
            return Some(("22023", why.into()));
        }
        // Where no rule allows it, that is what the client is to know.
        let allowed = self.replication.is_some() && gate.foresee(shape).is_ok();
        (allowed && !gate.standing_masks().are_none()).then_some(("42501", replication::MASKED.into()))
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

    /// What is recorded: settings that do something to the session, too.
    fn text(&self) -> String {
        format!(
            "{}{}",
            self.who_and_where(),
            self.doing().map(|setting| setting.recorded()).collect::<String>()
        )
    }

    /// What a yes counts for: all that the session begins with, but settings that change nothing about what statements do.
    fn matter(&self) -> Matter {
        self.doing().fold(Matter::new(self.who_and_where().as_bytes()), |matter, setting| {
            matter.with("session", format!("{} = {}", setting.name, setting.value).as_bytes())
        })
    }

    fn who_and_where(&self) -> String {
        let application = startup::last(self.all, "application_name").unwrap_or_default();
        format!("user={} database={} application_name={application}", self.user, self.database)
    }

    /// What a session begins with that changes what it does: `replication`, and settings.
    fn doing(&self) -> impl Iterator<Item = Setting<'_>> {
        let replication = self.replication.iter().map(|value| Setting { name: "replication", value });
        let settings = self.named().chain(&self.settings).filter(|(name, _)| !sql::changes_nothing(name));
        replication.chain(settings.map(|(name, value)| Setting { name, value }))
    }

    /// The settings among them.
    fn settings(&self) -> Vec<(String, String)> {
        self.named().chain(&self.settings).cloned().collect()
    }

    /// The settings that have a parameter of their own.
    fn named(&self) -> impl Iterator<Item = &(String, String)> {
        self.all.iter().filter(|(name, _)| !OWN.contains(&name.as_str()) && name != "database")
    }

    /// What the server is told.
    fn passed(&self) -> Vec<(String, String)> {
        let mut passed: Vec<_> = self.named().cloned().collect();
        passed.push(("database".into(), self.database.clone()));
        passed.push(("client_encoding".into(), "UTF8".into()));
        // Whatever the role or the database sets: the gate reads strings this way.
        passed.push(("standard_conforming_strings".into(), "on".into()));
        passed.extend(self.replication.iter().map(|value| ("replication".to_owned(), value.clone())));
        passed.extend(self.settings.iter().cloned());
        passed
    }
}

/// Something that a session begins with.
struct Setting<'a> {
    name: &'a str,
    value: &'a str,
}

impl Setting<'_> {
    /// As it may be recorded, after a space: without its value where that may be a secret.
    fn recorded(&self) -> String {
        let text = format!(" {}='{}'", self.name, self.value.replace('\'', "''"));
        sql::redact(&text).into_owned()
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
