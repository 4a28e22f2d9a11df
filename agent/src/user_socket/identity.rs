//! Saying who one is, seeing it, and ending it.

use std::io;

use tidegate_identity::{Beneficiary, Registry};

use super::{Answer, Answers, Caller};

/// Lets a token count for the caller, or for whoever ran it.
pub(super) async fn present(
    registry: &Registry,
    caller: &Caller,
    of: Beneficiary,
    token: &str,
    issuer: Option<&str>,
) -> Answer {
    match registry.present(caller.process, of, issuer, token.as_bytes()).await {
        Ok(identity) => Answer::Bound { identity },
        Err(defect) => Answer::failed(defect),
    }
}

/// Tells where the person is to go, and waits for them.
pub(super) async fn login(
    registry: &Registry,
    caller: &Caller,
    issuer: Option<&str>,
    answers: &mut Answers,
) -> io::Result<Answer> {
    let login = match registry.login(caller.process, issuer).await {
        Ok(login) => login,
        Err(defect) => return Ok(Answer::failed(defect)),
    };
    answers.tell(&Answer::Visit(login.visit().clone())).await?;
    Ok(match login.finish().await {
        Ok(identity) => Answer::Bound { identity },
        Err(defect) => Answer::failed(defect),
    })
}

/// Who the caller is.
pub(super) async fn whoami(registry: &Registry, caller: &Caller) -> Answer {
    let known = registry.identify(caller.process, caller.sharer.clone()).await;
    let identities = known.now.borrow().to_vec();
    Answer::Known { identities, unproven: known.unproven.to_vec() }
}

/// Forgets who the caller is.
pub(super) async fn logout(registry: &Registry, caller: &Caller, issuer: Option<&str>) -> Answer {
    match registry.logout(caller.process, issuer).await {
        Ok(ended) => Answer::LoggedOut { ended },
        Err(defect) => Answer::failed(defect),
    }
}
