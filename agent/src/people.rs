//! Where people are asked and answer: the desk, those that are told of it, the page, and the socket for every account.

use std::sync::Arc;

use tidegate_approvals::{
    Audience, Desk, Limits,
    store::{Postgres, Settings, Sqlite, Store, StoreError},
    webhooks::{Retries, Webhooks},
};
use tidegate_approvals_web::{Login, Logins, Pages, Server, Ticket, Tls};
use tidegate_gate::{BoxFuture, Credentials};
use tidegate_identity::{Application, Registry, Tie};
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;

use crate::{
    accounts::Accounts,
    config::{self, Config},
    credentials::Files,
    error::Error,
    socket::Socket,
    user_socket::Users,
};

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
        let desk = open(config, &**credentials, host).await?;
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
async fn open(config: &Config, credentials: &dyn Credentials, host: &str) -> Result<Desk, Error> {
    let failed = |error: StoreError| Error::Approvals(error.to_string());
    let store: Arc<dyn Store> = match &config.approvals.database {
        Some(database) => {
            let settings = settings(database, credentials).await?;
            Arc::new(Postgres::open(settings).await.map_err(failed)?)
        }
        None => Arc::new(Sqlite::open(&config.state.join("approvals.db")).map_err(failed)?),
    };
    let config::Approvals { questions, questions_per_principal, questions_per_minute, .. } = config.approvals;
    let limits =
        Limits { all: questions, of_account: questions_per_principal, a_minute: questions_per_minute };
    let hooks = config.approvals.webhooks.iter().map(|hook| (hook.0.name.clone(), hook.0.events.clone()));
    let page = config.approvals.web.as_ref().map(|web| format!("{}approvals/", web.url).into());
    let audience = Audience { hooks: hooks.collect(), page };
    Ok(Desk::open(host, store, limits, audience))
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
    let logins = Arc::new(Browsers { registry: registry.clone(), application });
    let pages =
        Pages::new(desk.clone(), logins, &web.url).ok_or_else(|| failed(&"there is no randomness"))?;
    Ok(Some((server, pages)))
}

/// People who log in by browser.
struct Browsers {
    registry: Registry,
    application: Application,
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
            let (identity, terms) = redeemed.map_err(|defect| defect.to_string())?;
            let registry = self.registry.clone();
            Ok(Login { identity, counts: Arc::new(move || registry.stands(&terms)) })
        })
    }
}

fn tie(ticket: &Ticket) -> Tie<'_> {
    Tie { state: &ticket.state, nonce: &ticket.nonce, verifier: &ticket.verifier }
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
