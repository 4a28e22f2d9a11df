//! Answers to the server's authentication requests.

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
};
use tidegate_gate::Secret;
use zeroize::Zeroizing;

use super::{SignInError, channel_binding};
use crate::wire::{Text, backend::Authentication, write};

/// What the connection is worth to an authentication method.
#[derive(Debug, Clone, Copy)]
pub(super) enum Channel<'a> {
    /// Anyone may read along.
    Plain,
    /// Inside TLS, with the server's certificate in DER form.
    Tls(Option<&'a [u8]>),
}

/// What to do about an authentication request.
pub(super) enum Step {
    /// Send this message.
    Send(Zeroizing<Vec<u8>>),
    /// Wait for the next one.
    Wait,
    /// The server is content.
    Done,
}

/// One sign-in. Each request is answered only where it may come: a method once, SCRAM in its order and to its end, so
/// that a server that doesn't know the password is never taken for one that does.
pub(super) struct Authenticator<'a> {
    user: &'a str,
    password: Option<&'a Secret>,
    channel: Channel<'a>,
    must_bind: bool,
    is_bound: bool,
    state: State,
}

enum State {
    /// Nothing was asked yet.
    Start,
    /// SCRAM's first message is sent.
    Challenge(Box<ScramSha256>),
    /// SCRAM's proof is sent; the server has to prove itself.
    Proof(Box<ScramSha256>),
    /// The method has run to its end.
    Answered,
}

impl<'a> Authenticator<'a> {
    /// With `must_bind`, only a sign-in that is bound to the TLS connection is gone through with.
    pub(super) fn new(
        user: &'a str,
        password: Option<&'a Secret>,
        channel: Channel<'a>,
        must_bind: bool,
    ) -> Self {
        Self { user, password, channel, must_bind, is_bound: false, state: State::Start }
    }

    pub(super) fn answer(&mut self, request: &Authentication<'_>) -> Result<Step, SignInError> {
        match self.step(request)? {
            Step::Send(_) | Step::Done if self.must_bind && !self.is_bound => Err(SignInError::NotBound),
            step => Ok(step),
        }
    }

    fn step(&mut self, request: &Authentication<'_>) -> Result<Step, SignInError> {
        let state = std::mem::replace(&mut self.state, State::Answered);
        match (state, request) {
            (State::Start | State::Answered, Authentication::Ok) => Ok(Step::Done),
            (State::Start, Authentication::CleartextPassword) => self.cleartext(),
            (State::Start, Authentication::Md5Password { salt }) => self.md5(*salt),
            (State::Start, Authentication::Sasl(mechanisms)) => self.scram(mechanisms),
            (State::Challenge(scram), Authentication::SaslContinue(challenge)) => {
                self.prove(scram, challenge)
            }
            (State::Proof(mut scram), Authentication::SaslFinal(outcome)) => {
                scram.finish(outcome).map_err(|error| SignInError::Scram(error.to_string()))?;
                Ok(Step::Wait)
            }
            (State::Start, Authentication::Other(code)) => Err(SignInError::Unsupported(method(*code))),
            _ => Err(SignInError::Protocol("an authentication request out of turn".to_owned())),
        }
    }

    fn password(&self) -> Result<&'a [u8], SignInError> {
        let password =
            self.password.ok_or(SignInError::Unusable("it has no password, and the server asks for one"))?;
        match password.expose() {
            [] => Err(SignInError::Unusable("its password is empty")),
            bytes if bytes.contains(&0) => Err(SignInError::Unusable("its password holds a zero byte")),
            bytes => Ok(bytes),
        }
    }

    fn cleartext(&self) -> Result<Step, SignInError> {
        if let Channel::Plain = self.channel {
            return Err(SignInError::CleartextPassword);
        }
        let password = self.password()?;
        Ok(Step::Send(sensitive(password.len(), |out| write::password(out, password))))
    }

    fn md5(&self, salt: [u8; 4]) -> Result<Step, SignInError> {
        let digest = Zeroizing::new(md5_hash(self.user.as_bytes(), self.password()?, salt));
        Ok(Step::Send(sensitive(digest.len(), |out| write::password(out, digest.as_bytes()))))
    }

    /// Chooses as libpq does: channel binding wherever it is offered, never less.
    fn scram(&mut self, mechanisms: &[Text<'_>]) -> Result<Step, SignInError> {
        let offers = |name: &str| mechanisms.iter().any(|offered| offered.as_bytes() == name.as_bytes());
        let (mechanism, binding) = match self.channel {
            Channel::Tls(certificate) if offers(SCRAM_SHA_256_PLUS) => {
                let end_point = certificate
                    .and_then(channel_binding::tls_server_end_point)
                    .ok_or(SignInError::ChannelBinding)?;
                self.is_bound = true;
                (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point))
            }
            Channel::Plain if offers(SCRAM_SHA_256_PLUS) => {
                return Err(SignInError::Protocol("channel binding offered without TLS".to_owned()));
            }
            Channel::Tls(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            Channel::Plain if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            _ => return Err(SignInError::Unsupported("a SASL mechanism other than SCRAM-SHA-256")),
        };
        let scram = ScramSha256::new(self.password()?, binding);
        let first = sensitive(scram.message().len(), |out| {
            write::sasl_initial_response(out, mechanism, scram.message());
        });
        self.state = State::Challenge(Box::new(scram));
        Ok(Step::Send(first))
    }

    fn prove(&mut self, mut scram: Box<ScramSha256>, challenge: &[u8]) -> Result<Step, SignInError> {
        scram.update(challenge).map_err(|error| SignInError::Scram(error.to_string()))?;
        let proof = sensitive(scram.message().len(), |out| write::sasl_response(out, scram.message()));
        self.state = State::Proof(scram);
        Ok(Step::Send(proof))
    }
}

/// A message that is wiped when dropped; it never grows, which would leave a copy behind.
fn sensitive(length: usize, write: impl FnOnce(&mut Vec<u8>)) -> Zeroizing<Vec<u8>> {
    /// More than any of these messages has beside what is secret.
    const FRAMING_BYTES: usize = 64;
    let mut message = Zeroizing::new(Vec::with_capacity(length + FRAMING_BYTES));
    write(&mut message);
    message
}

/// What an authentication code asks for.
fn method(code: u32) -> &'static str {
    match code {
        2 => "Kerberos",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => "an unknown method",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is answered to the offer of these mechanisms.
    fn answer(channel: Channel<'_>, offered: &[u8]) -> Result<Vec<u8>, SignInError> {
        let password = Secret::new(b"hunter2".to_vec());
        let request = [&[0, 0, 0, 10], offered, b"\0"].concat();
        let mut authenticator = Authenticator::new("gate", Some(&password), channel, false);
        match authenticator.answer(&Authentication::parse(&request).unwrap())? {
            Step::Send(message) => Ok(message.to_vec()),
            Step::Wait | Step::Done => panic!("a mechanism has a first message"),
        }
    }

    fn contains(message: &[u8], part: &[u8]) -> bool {
        message.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn channel_binding_is_used_wherever_it_is_offered() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["db.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let tls = Channel::Tls(Some(&certificate));
        let both = b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0";
        assert!(contains(&answer(tls, both).unwrap(), b"SCRAM-SHA-256-PLUS\0"));
        assert!(contains(&answer(tls, both).unwrap(), b"p=tls-server-end-point,,"));
        assert!(contains(&answer(tls, b"SCRAM-SHA-256\0").unwrap(), b"y,,n="), "it would have been used");
        assert!(contains(&answer(Channel::Plain, b"SCRAM-SHA-256\0").unwrap(), b"n,,n="));
    }

    #[test]
    fn channel_binding_that_cannot_be_used_is_no_reason_to_do_without() {
        let both = b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0";
        let refused = answer(Channel::Tls(Some(b"no certificate")), both);
        assert!(matches!(refused, Err(SignInError::ChannelBinding)), "{refused:?}");
    }

    #[test]
    fn a_message_with_a_secret_never_moves() {
        let secret = [b'x'; 500];
        let message = sensitive(secret.len(), |out| write::password(out, &secret));
        assert!(message.capacity() >= message.len() && message.len() > secret.len());
        assert!(message.capacity() < 2 * secret.len(), "it was never grown");
    }
}
