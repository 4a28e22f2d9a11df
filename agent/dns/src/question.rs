//! The codec: one question in, one answer out (RFC 1035, 4). Pure.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType, rdata::opt::EdnsOption},
};

use crate::{Answer, LONGEST, LONGEST_TTL, Refusal};

/// Bytes of a header.
const HEADER: usize = 12;
/// Longest answer for who doesn't say that more is fine (RFC 1035, 4.2.1).
const WITHOUT_EDNS: u16 = 512;
/// The option that says why (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// One question that can be answered. What it asks for is kept as it was written, for the answer to repeat.
#[derive(Debug, Clone)]
pub struct Question {
    id: u16,
    recursion_desired: bool,
    query: Query,
    /// Longest answer that the asker takes over UDP; none if it said nothing.
    payload: Option<u16>,
    name: String,
}

/// Why a message is no question that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It gets no answer: it may be one itself, and two that answer each other never end.
    Ignored,
    /// It gets this answer.
    Answered(Vec<u8>),
}

impl Question {
    /// Reads a message.
    pub fn read(message: &[u8]) -> Result<Self, Unreadable> {
        let Some([high, low, flags, ..]) = message.get(..HEADER) else { return Err(Unreadable::Ignored) };
        if flags & 0x80 != 0 {
            return Err(Unreadable::Ignored);
        }
        let id = u16::from_be_bytes([*high, *low]);
        let answered = |code| Unreadable::Answered(bytes(&Message::error_msg(id, OpCode::Query, code)));
        if message.len() > LONGEST {
            return Err(answered(ResponseCode::FormErr));
        }
        let read = Message::from_vec(message).map_err(|_| answered(ResponseCode::FormErr))?;
        if read.metadata.message_type != MessageType::Query || read.metadata.op_code != OpCode::Query {
            return Err(answered(ResponseCode::NotImp));
        }
        let only = read.answers.is_empty() && read.authorities.is_empty() && read.additionals.is_empty();
        let ([query], true, None) = (read.queries.as_slice(), only, &read.signature) else {
            return Err(answered(ResponseCode::FormErr));
        };
        if query.query_class() != DNSClass::IN {
            return Err(answered(ResponseCode::NotImp));
        }
        if read.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Err(answered(ResponseCode::BADVERS));
        }
        Ok(Self {
            id,
            recursion_desired: read.metadata.recursion_desired,
            query: query.clone(),
            payload: read.edns.as_ref().map(Edns::max_payload),
            name: plain(&query.name().to_ascii()),
        })
    }

    /// The name asked for, in lower case and without a final dot; in the form of zone files where it is no host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of record asked for.
    pub fn kind(&self) -> RecordType {
        self.query.query_type()
    }

    /// Writes the answer to send over UDP: cut short, and marked so, if the asker doesn't take so much.
    pub fn datagram(&self, answer: &Answer) -> Vec<u8> {
        let longest = usize::from(self.payload.unwrap_or(WITHOUT_EDNS).max(WITHOUT_EDNS)).min(LONGEST);
        let message = self.message(answer);
        let written = bytes(&message);
        if written.len() <= longest { written } else { bytes(&message.truncate()) }
    }

    /// Writes the answer to send over TCP, without the length before it.
    pub fn message_of(&self, answer: &Answer) -> Vec<u8> {
        bytes(&self.message(answer))
    }

    fn message(&self, answer: &Answer) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.response_code = match answer {
            Answer::Addresses { .. } => ResponseCode::NoError,
            Answer::NoSuchName => ResponseCode::NXDomain,
            Answer::Failed(_) => ResponseCode::ServFail,
            Answer::Refused(_) => ResponseCode::Refused,
        };
        message.add_query(self.query.clone());
        if let Answer::Addresses { addresses, ttl } = answer {
            let seconds = u32::try_from((*ttl).min(LONGEST_TTL).as_secs()).unwrap_or(0);
            let record = |address: &IpAddr| {
                Record::from_rdata(self.query.name().clone(), seconds, RData::from(*address))
            };
            message.add_answers(addresses.iter().map(record));
        }
        if self.payload.is_some() {
            message.set_edns(edns(answer));
        }
        message
    }
}

/// The answer's own EDNS, with the reason where there is one.
fn edns(answer: &Answer) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(u16::try_from(LONGEST).unwrap_or(WITHOUT_EDNS));
    if let Some((code, text)) = extended(answer) {
        let mut data = code.to_be_bytes().to_vec();
        data.extend_from_slice(text.as_bytes());
        edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, data));
    }
    edns
}

/// Code and text of RFC 8914, section 4.
fn extended(answer: &Answer) -> Option<(u16, String)> {
    const OTHER: u16 = 0;
    const BLOCKED: u16 = 15;
    const PROHIBITED: u16 = 18;
    const NOT_SUPPORTED: u16 = 21;
    const NETWORK_ERROR: u16 = 23;
    match answer {
        Answer::Refused(refusal) => {
            let code = match refusal {
                Refusal::Unknown => PROHIBITED,
                Refusal::Kind => NOT_SUPPORTED,
                Refusal::TooMany | Refusal::TooManyNames => OTHER,
                Refusal::Addresses(_) => BLOCKED,
            };
            Some((code, refusal.to_string()))
        }
        Answer::Failed(_) => Some((NETWORK_ERROR, "the name could not be looked up".into())),
        Answer::Addresses { .. } | Answer::NoSuchName => None,
    }
}

/// A message made here can always be written; were it not, an empty one is never taken for an answer.
fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    fn asked(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn with_edns(mut message: Message, payload: u16) -> Message {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
        message
    }

    fn question(message: &Message) -> Question {
        Question::read(&message.to_vec().unwrap()).unwrap()
    }

    fn code(unreadable: Unreadable) -> ResponseCode {
        let Unreadable::Answered(bytes) = unreadable else { panic!("ignored") };
        Message::from_vec(&bytes).unwrap().metadata.response_code
    }

    fn addresses(count: u8) -> Answer {
        let addresses = (0..count).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        Answer::Addresses { addresses, ttl: Duration::from_secs(60) }
    }

    #[test]
    fn an_answer_repeats_id_and_name_as_they_were_written() {
        let question = question(&asked("Db.INTERNAL.", RecordType::A));
        assert_eq!(question.name(), "db.internal");
        let answer = Message::from_vec(&question.datagram(&addresses(1))).unwrap();
        assert_eq!(answer.metadata.id, 0x1234);
        assert_eq!(answer.queries[0].name().to_ascii(), "Db.INTERNAL.");
        assert_eq!(answer.answers[0].name.to_ascii(), "Db.INTERNAL.");
        assert_eq!(answer.answers[0].ttl, 60);
        assert!(answer.edns.is_none(), "an asker without EDNS gets none");
    }

    #[test]
    fn a_refusal_says_why() {
        let question = question(&with_edns(asked("evil.example.", RecordType::A), 1232));
        let answer = Message::from_vec(&question.datagram(&Answer::Refused(Refusal::Unknown))).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        let edns = answer.edns.unwrap();
        let Some(EdnsOption::Unknown(_, data)) = edns.option(EXTENDED_ERROR.into()) else {
            panic!("no reason")
        };
        assert_eq!(data[..2], [0, 18]);
        assert_eq!(&data[2..], Refusal::Unknown.to_string().as_bytes());
    }

    #[test]
    fn an_answer_that_is_too_long_for_the_asker_is_cut_and_marked() {
        let plain = asked("db.internal.", RecordType::A);
        let short = Message::from_vec(&question(&plain).datagram(&addresses(60))).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty());
        let longer = Message::from_vec(&question(&with_edns(plain, 4096)).datagram(&addresses(60))).unwrap();
        assert!(!longer.metadata.truncation);
        assert_eq!(longer.answers.len(), 60);
    }

    #[test]
    fn an_answer_is_never_kept_for_longer_than_its_addresses_are_reachable() {
        let question = question(&asked("db.internal.", RecordType::A));
        let day = Answer::Addresses {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ttl: Duration::from_secs(86_400),
        };
        let answer = Message::from_vec(&question.datagram(&day)).unwrap();
        assert_eq!(u64::from(answer.answers[0].ttl), LONGEST_TTL.as_secs());
    }

    #[test]
    fn an_answer_is_not_answered() {
        let mut answer = asked("db.internal.", RecordType::A);
        answer.metadata.message_type = MessageType::Response;
        assert_eq!(Question::read(&answer.to_vec().unwrap()).unwrap_err(), Unreadable::Ignored);
        assert_eq!(Question::read(b"\x12\x34").unwrap_err(), Unreadable::Ignored);
    }

    #[test]
    fn what_is_more_than_one_question_is_refused() {
        let mut two = asked("db.internal.", RecordType::A);
        two.add_query(Query::query(Name::from_ascii("x.").unwrap(), RecordType::A));
        let mut carrying = asked("db.internal.", RecordType::A);
        let rdata = RData::from(IpAddr::from([192, 0, 2, 1]));
        carrying.add_additional(Record::from_rdata(Name::from_ascii("data.").unwrap(), 0, rdata));
        for message in [two, carrying] {
            assert_eq!(code(Question::read(&message.to_vec().unwrap()).unwrap_err()), ResponseCode::FormErr);
        }
        let mut update = asked("db.internal.", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(code(Question::read(&update.to_vec().unwrap()).unwrap_err()), ResponseCode::NotImp);
    }

    #[test]
    fn a_name_that_points_at_itself_ends() {
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(code(Question::read(&message).unwrap_err()), ResponseCode::FormErr);
    }

    #[test]
    fn a_message_longer_than_any_question_is_refused_unread() {
        let mut message = asked("db.internal.", RecordType::A).to_vec().unwrap();
        message.resize(LONGEST + 1, 0);
        assert_eq!(code(Question::read(&message).unwrap_err()), ResponseCode::FormErr);
    }

    proptest! {
        #[test]
        fn no_message_brings_it_down(message in proptest::collection::vec(any::<u8>(), 0..1400)) {
            if let Ok(question) = Question::read(&message) {
                prop_assert!(question.datagram(&addresses(3)).len() <= LONGEST);
            }
        }

        #[test]
        fn no_damaged_question_brings_it_down(at in 0_usize..40, byte in any::<u8>()) {
            let mut message = with_edns(asked("db.internal.", RecordType::A), 1232).to_vec().unwrap();
            let at = at % message.len();
            message[at] = byte;
            if let Ok(question) = Question::read(&message) {
                question.datagram(&Answer::Refused(Refusal::Unknown));
            }
        }
    }
}
