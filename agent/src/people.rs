//! Where people are asked and answer: the desk, those that are told of it, the page, and the socket for every account.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tidegate_approvals::{
    Audience, Clock, Desk, Limits,
    store::{Postgres, Settings, Sqlite, Store, StoreError},
    webhooks::{Retries, Webhooks},
};
use tidegate_approvals_web::{Login, Logins, Pages, Server, Ticket, Tls};
use tidegate_gate::{BoxFuture, Credentials, policy::Identity};
use tidegate_identity::{Application, Registry, Terms, Tie};
use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::config::SslMode;

use crate::{
    accounts::Accounts,
    config::{self, Config},
    credentials::Files,
    error::Error,
    notify,
    socket::Socket,
    user_socket::Users,
};

/// For how long the service manager is told that the start goes on.
const GOES_ON: Duration = Duration::from_secs(30);

/// Everything that people have to do with.
pub(crate) struct People {
    /// Where they are asked.
    pub(crate) desk: Desk,
    /// Who answers on the socket for every account.
    pub(crate) users: Arc<Users>,
    /// Who is told of questions.
    pub(crate) webhooks: Webhooks,
    /// The page for browsers, if there is to be one.
    pub(crate) page: Option<(Server, Pages)>,
}

impl People {
    /// Opens the desk of this host and whatever the configuration has beside it.
    pub(crate) async fn gather(
        config: &Config,
        credentials: &Arc<Files>,
        registry: &Registry,
        (host, accounts): (&str, &Accounts),
    ) -> Result<Self, Error> {
        let desk = open(config, credentials, host).await?;
        Ok(Self {
            users: Users::new(registry.clone(), desk.clone(), accounts.clone()),
            webhooks: webhooks(config, credentials.clone()).await?,
            page: page(config, &**credentials, &desk, registry).await?,
            desk,
        })
    }

    /// Serves them among these tasks.
    pub(crate) fn serve(self, socket: Socket, tasks: &mut JoinSet<()>) {
        let Self { desk, users, webhooks, page } = self;
        tasks.spawn(users.run(socket));
        tasks.spawn(webhooks.run(desk));
        if let Some((server, pages)) = page {
            tasks.spawn(server.run(pages));
        }
    }
}

/// Opens this host's desk: on the fleet's database where the configuration names one, else on a file of its own.
async fn open(config: &Config, credentials: &Arc<Files>, host: &str) -> Result<Desk, Error> {
    let failed = |error: StoreError| Error::Approvals(error.to_string());
    let store: Arc<dyn Store> = match &config.approvals.database {
        Some(database) => {
            let settings = settings(database, credentials.clone()).await?;
            Arc::new(Postgres::open(settings).map_err(failed)?)
        }
        None => Arc::new(file(config.state.join("approvals.db")).await.map_err(failed)?),
    };
    let config::Approvals { questions, questions_per_principal, questions_per_minute, .. } = config.approvals;
    let limits =
        Limits { all: questions, of_account: questions_per_principal, a_minute: questions_per_minute };
    let hooks = config.approvals.webhooks.iter().map(|hook| (hook.0.name.clone(), hook.0.events.clone()));
    let page = config.approvals.web.as_ref().map(|web| format!("{}approvals/", web.url).into());
    let audience = Audience { hooks: hooks.collect(), page };
    let clock = Clock::steady(config.state.join("approvals.clock"));
    Ok(Desk::open_by(clock, host, store, limits, audience))
}

/// Opens the file. What an earlier agent wrote may take long to be brought to the present form: the service manager, which
/// takes a start that takes long for one that hangs, is told that it goes on.
async fn file(path: PathBuf) -> Result<Sqlite, StoreError> {
    let mut opening = tokio::task::spawn_blocking(move || Sqlite::open(&path));
    loop {
        if let Ok(opened) = timeout(GOES_ON / 3, &mut opening).await {
            return opened.unwrap_or_else(|_| Err(StoreError::Failed("it was cut off".into())));
        }
        if let Err(error) = notify::starts_within(GOES_ON) {
            tracing::warn!(%error, "the service manager was not told that the start goes on");
        }
    }
}

/// The receivers that are told, with everything that they need.
async fn webhooks(config: &Config, credentials: Arc<dyn Credentials>) -> Result<Webhooks, Error> {
    let hooks = config.approvals.webhooks.iter().map(|hook| hook.0.clone()).collect();
    let ready = Webhooks::new(hooks, credentials, Retries::default()).await;
    ready.map_err(|problems| Error::Approvals(problems.join("; ")))
}

/// The page for browsers, if there is to be one, bound and with everything that it needs.
async fn page(
    config: &Config,
    credentials: &dyn Credentials,
    desk: &Desk,
    registry: &Registry,
) -> Result<Option<(Server, Pages)>, Error> {
    let Some(web) = &config.approvals.web else { return Ok(None) };
    let failed = |why: &dyn ToString| Error::Approvals(format!("`web`: {}", why.to_string()));
    let tls = match &web.tls {
        None => None,
        Some(name) => {
            let credential = credentials.credential(name).await.map_err(|error| failed(&error))?;
            let (Some(chain), Some(key)) = (credential.certificate, credential.key) else {
                return Err(failed(&format!("credential {name:?} has no {name}.certificate and {name}.key")));
            };
            let tls = Tls::new(&chain, key.expose());
            Some(tls.map_err(|why| failed(&format!("credential {name:?}: {why}")))?)
        }
    };
    let secret = match &web.client_secret {
        None => None,
        Some(name) => {
            let credential = credentials.credential(name).await.map_err(|error| failed(&error))?;
            let none = || failed(&format!("credential {name:?} has no {name}.password"));
            Some(credential.password.ok_or_else(none)?)
        }
    };
    let application = Application {
        issuer: web.issuer.clone(),
        client: web.client.clone(),
        secret,
        scopes: web.scopes.clone(),
        redirect: web.url.join("callback").map_err(|error| failed(&error))?,
    };
    let server = Server::bind(web.listen, tls).await;
    let server = server.map_err(|error| Error::Listen { address: web.listen, error })?;
    let require = web.api.as_ref().map(|api| api.require.clone()).unwrap_or_default();
    let logins = Arc::new(Browsers { registry: registry.clone(), application, require });
    let pages =
        Pages::new(desk.clone(), logins, &web.url).ok_or_else(|| failed(&"there is no randomness"))?;
    Ok(Some((server, if web.api.is_some() { pages.with_api() } else { pages })))
}

/// People who log in by browser.
struct Browsers {
    registry: Registry,
    application: Application,
    /// Claims of tokens that programs bear.
    require: BTreeMap<String, String>,
}

impl Logins for Browsers {
    fn begin<'a>(&'a self, ticket: &'a Ticket) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            let url = self.registry.authorization(&self.application, tie(ticket)).await;
            url.map(String::from).map_err(|defect| defect.to_string())
        })
    }

    fn finish<'a>(
        &'a self,
        code: &'a str,
        issuer: Option<&'a str>,
        ticket: &'a Ticket,
    ) -> BoxFuture<'a, Result<Login, String>> {
        Box::pin(async move {
            let redeemed = self.registry.redeem_code(&self.application, code, issuer, tie(ticket)).await;
            redeemed.map(|let_in| self.login(let_in)).map_err(|defect| defect.to_string())
        })
    }

    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Login, String>> {
        Box::pin(async move {
            let borne = self.registry.borne(&self.application, token, &self.require).await;
            borne.map(|let_in| self.login(let_in)).map_err(|defect| defect.to_string())
        })
    }
}

impl Browsers {
    fn login(&self, (identity, terms): (Identity, Terms)) -> Login {
        let registry = self.registry.clone();
        Login { identity, counts: Arc::new(move || registry.stands(&terms)) }
    }
}

fn tie(ticket: &Ticket) -> Tie<'_> {
    Tie { state: &ticket.state, nonce: &ticket.nonce, verifier: &ticket.verifier }
}

/// How to reach the fleet's database. User and password are never in the configuration; that they are there is found out now, and
/// they are read anew for each connection.
async fn settings(database: &config::Database, credentials: Arc<dyn Credentials>) -> Result<Settings, Error> {
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
    let credential: Arc<str> = database.credential.as_str().into();
    credentials.credential(&credential).await.map_err(|error| failed(&error))?;
    Ok(Settings { connection, ca: database.ca.clone(), credentials, credential })
}

#[cfg(test)]
mod tests {
    use tidegate_gate::{Credential, CredentialError, Secret};

    use super::*;

    /// Has one credential, `fleet`.
    struct Safe;

    impl Credentials for Safe {
        fn credential<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, CredentialError>> {
            Box::pin(async move {
                let password = Some(Secret::new(b"t0ps3cret".to_vec()));
                let fleet = || Credential { user: Some("fleet".into()), password, ..Credential::default() };
                (name == "fleet").then(fleet).ok_or_else(|| CredentialError::Missing(name.into()))
            })
        }
    }

    async fn parsed(connection: &str, credential: &str) -> Result<Settings, String> {
        let (connection, credential) = (connection.to_owned(), credential.to_owned());
        let database = config::Database { connection, credential, ca: None };
        settings(&database, Arc::new(Safe)).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_fleets_database_is_reached_by_tls_unless_the_configuration_says_otherwise() {
        for (mode, taken) in [
            ("", SslMode::Require),
            ("sslmode=prefer", SslMode::Require),
            ("sslmode=require", SslMode::Require),
            ("sslmode=disable", SslMode::Disable),
        ] {
            let settings =
                parsed(&format!("host=db.internal dbname=tidegate {mode}"), "fleet").await.unwrap();
            assert_eq!(settings.connection.get_ssl_mode(), taken, "{mode}");
        }
    }

    #[tokio::test]
    async fn no_password_is_taken_from_the_configuration_or_told() {
        for connection in ["host=db password=t0ps3cret", "postgresql://fleet:t0ps3cret@db/tidegate"] {
            let refused = parsed(connection, "fleet").await.err().unwrap();
            assert!(refused.contains("put it into the credential's file"), "{refused}");
            assert!(!refused.contains("t0ps3cret"), "{refused}");
        }
        let kept = parsed("host=db", "fleet").await.unwrap();
        assert_eq!(kept.connection.get_password(), None, "a rotated one would not count");
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_fleets_database_is_told_at_the_start() {
        for (connection, credential, words) in [
            ("host=db sslmode=sometimes", "fleet", "`database.connection`: "),
            ("host=db", "other", "\"other\" is in none of the configured places"),
        ] {
            let refused = parsed(connection, credential).await.err().unwrap();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
