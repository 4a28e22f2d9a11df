//! What people and jobs ask for themselves: to present a token, to log in, to know who they are, to log out.

use std::sync::Arc;

use tidegate_policy::{Identity, Issuer, TokenSource};

use crate::{
    Defect, ProcessId, Registry, Visit,
    device::{Client, Flow},
    host::Place,
    registry::{Known, trimmed},
    renewal::{Renewal, Source},
    token::Token,
    trees::{Claim, How},
};

/// A login that waits for the person. Dropped, it is given up.
pub struct Login {
    registry: Registry,
    known: Arc<Known>,
    caller: ProcessId,
    flow: Flow,
}

/// For whom a token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beneficiary {
    /// The caller itself, which becomes another program then.
    Caller,
    /// The shell that ran it.
    Shell,
}

impl Registry {
    /// Binds a token to the caller's own process tree, or to that of the shell that ran it.
    pub async fn present(
        &self,
        caller: ProcessId,
        of: Beneficiary,
        issuer: Option<&str>,
        text: &[u8],
    ) -> Result<Identity, Defect> {
        let text = trimmed(text);
        let known = self.of_token(issuer, &text)?;
        let verified = self.inner.verify(&known, &text, &known.issuer.audience).await?;
        let place = self.place(caller).await?;
        let root = match of {
            Beneficiary::Caller => caller,
            Beneficiary::Shell => self.shell_of(caller, &place)?,
        };
        let identity = verified.identity.clone();
        self.inner
            .bind(Claim {
                issuer: &known.issuer,
                place: &place,
                root,
                login: None,
                how: How::Presented,
                siblings: false,
                got_with: None,
                renewal: None,
                verified,
            })
            .await?;
        Ok(identity)
    }

    /// Begins a login at this issuer, or at the only one that has logins.
    pub async fn login(&self, caller: ProcessId, issuer: Option<&str>) -> Result<Login, Defect> {
        let known = self.of_login(issuer)?;
        let Some((client, scopes)) = known.issuer.login() else {
            return Err(Defect::NotTaken(format!("issuer {:?} has no logins", known.issuer.name)));
        };
        // Before anybody is sent anywhere.
        self.session_of(caller, &self.place(caller).await?)?;
        let flow = Client::of(&known, client.clone()).await?.begin(scopes).await?;
        Ok(Login { registry: self.clone(), known, caller, flow })
    }

    /// Ends what was presented for the caller, or logged in with; how many identities that were.
    pub async fn logout(&self, caller: ProcessId, issuer: Option<&str>) -> Result<usize, Defect> {
        let place = self.place(caller).await?;
        Ok(self.inner.trees.log_out(&place, issuer))
    }

    /// The shell that ran this command, if it must be the job's own: a daemon that starts commands for many accounts is nobody's
    /// tree, and a runner none of the job's that it started. Whose child one is and in which process group are the caller's to
    /// arrange; its session is not, once that is begun.
    fn shell_of(&self, caller: ProcessId, place: &Place) -> Result<ProcessId, Defect> {
        let [own, parent, ..] = &*place.lineage else {
            return Err(Defect::NoTree("whoever ran this command has ended already"));
        };
        let host = &*self.inner.host;
        if host.uid(caller).is_none_or(|uid| host.uid(parent.id) != Some(uid)) {
            return Err(Defect::NoTree("run it from a shell or another process of the same account"));
        }
        let leader = self.leader_of_account(caller, place);
        let is_own = leader.is_some_and(|(leader, terminal)| {
            own.session == parent.session && (!terminal || leader == parent.id)
        });
        if is_own { Ok(parent.id) } else { Err(Defect::NoSession) }
    }

    /// The leader of the caller's session, if that was begun for a job or a login of the caller's account, and whether it has a
    /// terminal. A service's own session is its runner's; where an account may move its own processes among cgroups (those of
    /// a user's own manager), nothing tells which it is.
    fn leader_of_account(&self, caller: ProcessId, place: &Place) -> Option<(ProcessId, bool)> {
        let (own, host) = (place.lineage.first()?, &*self.inner.host);
        let (leader, above) = place.leader(own.session)?;
        let uid = host.uid(caller)?;
        if leader.id == caller || host.uid(leader.id) != Some(uid) {
            return None;
        }
        let terminal = host.is_at_terminal(leader.id);
        let within =
            || host.cgroup(leader.id).is_some_and(|own| above.and_then(|id| host.cgroup(id)) == Some(own));
        (terminal || within()).then_some((leader.id, terminal))
    }

    async fn place(&self, caller: ProcessId) -> Result<Place, Defect> {
        let host = self.inner.host.clone();
        let place = tokio::task::spawn_blocking(move || Place::of(&*host, caller)).await;
        let place = place.map_err(|_| Defect::NoTree("looking for it was cut off"))?;
        if place.lineage.is_empty() { Err(Defect::NoTree("the caller has ended already")) } else { Ok(place) }
    }

    /// The process that a login ends with: the leader of the caller's session or, at a terminal that another account's
    /// session has, the process that ran the caller.
    fn session_of(&self, caller: ProcessId, place: &Place) -> Result<ProcessId, Defect> {
        if let Some((leader, _)) = self.leader_of_account(caller, place) {
            return Ok(leader);
        }
        let host = &*self.inner.host;
        let shell = match &*place.lineage {
            [own, parent, ..] if own.session == parent.session => {
                let terminal = host.is_at_terminal(parent.id);
                let same = host.uid(caller).is_some_and(|uid| host.uid(parent.id) == Some(uid));
                (terminal && same).then_some(parent.id)
            }
            _ => None,
        };
        shell.ok_or(Defect::NoTree("no login session or shell of the caller's account"))
    }

    fn of_token(&self, name: Option<&str>, text: &[u8]) -> Result<Arc<Known>, Defect> {
        let taken = |issuer: &Issuer| issuer.tokens.contains(&TokenSource::Present);
        let issuers = self.taking(name, taken, "tokens by `tidegate present`")?;
        let token = Token::parse(text)?;
        let of = issuers.iter().find(|known| token.is_of(&known.issuer)).cloned();
        of.ok_or_else(|| {
            let urls: Vec<_> = issuers.iter().map(|known| &*known.issuer.url).collect();
            Defect::Issuer(urls.join(" and "))
        })
    }

    fn of_login(&self, name: Option<&str>) -> Result<Arc<Known>, Defect> {
        let issuers = self.taking(name, |issuer| issuer.login().is_some(), "logins")?;
        match &issuers[..] {
            [only] => Ok(only.clone()),
            several => {
                let names: Vec<_> = several.iter().map(|known| &*known.issuer.name).collect();
                Err(Defect::NotTaken(format!("say which with --issuer: {}", names.join(", "))))
            }
        }
    }

    /// The issuers that take something; that of this name, if one is given.
    fn taking(
        &self,
        name: Option<&str>,
        takes: impl Fn(&Issuer) -> bool,
        what: &str,
    ) -> Result<Vec<Arc<Known>>, Defect> {
        let issuers = self.inner.issuers();
        let asked = issuers.iter().filter(|known| name.is_none_or(|name| *known.issuer.name == *name));
        let taking: Vec<_> = asked.filter(|known| takes(&known.issuer)).cloned().collect();
        if taking.is_empty() {
            let which = name.map_or("no issuer".to_owned(), |name| format!("no issuer {name:?}"));
            return Err(Defect::NotTaken(format!("the bundle in force has {which} that takes {what}")));
        }
        Ok(taking)
    }
}

impl Login {
    /// What the person is to do.
    pub fn visit(&self) -> &Visit {
        &self.flow.visit
    }

    /// Waits for the person, then binds the identity to the caller's login session and renews it as long as that lives.
    pub async fn finish(self) -> Result<Identity, Defect> {
        let Self { registry, known, caller, flow } = self;
        let (client, tokens) = flow.finish().await?;
        let verified = registry.inner.verify(&known, &tokens.id_token, &client.id).await?;
        let place = registry.place(caller).await?;
        let root = registry.session_of(caller, &place)?;
        let renewal = tokens
            .refresh_token
            .map(|refresh_token| Renewal::new(Source::Refresh { client: client.id.clone(), refresh_token }));
        let identity = verified.identity.clone();
        let bound = registry
            .inner
            .bind(Claim {
                issuer: &known.issuer,
                place: &place,
                root,
                login: place.login,
                how: How::LoggedIn,
                siblings: false,
                got_with: None,
                renewal: renewal.clone(),
                verified,
            })
            .await?;
        if let Some(renewal) = renewal {
            drop(tokio::spawn(renewal.keep(registry.inner.clone(), known, bound, identity.clone())));
        }
        Ok(identity)
    }
}
