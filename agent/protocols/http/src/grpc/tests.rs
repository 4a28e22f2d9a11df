use std::path::Path;

use prost_reflect::{DynamicMessage, SerializeOptions, prost::Message};
use serde_json::{Value, json};
use tidegate_gate::{
    Masker, Secret,
    policy::{Item, Policy, Principal, Shape, SourceFile, Value as Seen},
};

use super::{Call, Descriptors, fields, frames::framed, masked::masked};
use crate::{shown::Masks, vocabulary::VOCABULARY};

fn descriptors() -> Descriptors {
    Descriptors::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/grpc/shop.binpb")).unwrap()
}

fn create() -> Call {
    descriptors().call("acme.shop.Orders/Create").unwrap()
}

/// A message that is written as JSON.
fn message(of: &prost_reflect::MessageDescriptor, value: &Value) -> Vec<u8> {
    DynamicMessage::deserialize(of.clone(), value).unwrap().encode_to_vec()
}

fn told(value: &Value) -> Vec<String> {
    let call = create();
    let fields = fields::of(&call.input, &message(&call.input, value)).unwrap();
    fields.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn fields_have_the_names_of_json_and_of_their_declaration() {
    let told = told(&json!({
        "amount": 7, "customerName": "Ada", "kind": "GIFT", "cash": true, "labels": {"x.y": "z"},
        "items": [{"name": "cup", "price": 1.5}, {"price": 2}],
    }));
    for wanted in [
        "amount=7",
        "customerName=Ada",
        "customer_name=Ada",
        "kind=GIFT",
        "cash=true",
        "labels.\"x.y\"=z",
        "labels.x.y=z",
        "items.name=cup",
        "items.name=",
        "items.price=1.5",
        "items.price=2",
    ] {
        assert!(told.contains(&wanted.to_owned()), "{wanted}: {told:?}");
    }
}

#[test]
fn what_is_not_sent_has_its_default_unless_it_can_be_absent() {
    let told = told(&json!({}));
    for wanted in ["amount=0", "customerName=", "kind=KIND_UNSPECIFIED", "items=[]", "labels={}"] {
        assert!(told.contains(&wanted.to_owned()), "{wanted}: {told:?}");
    }
    let absent = ["cash", "cardNumber", "note", "earlier", "numbers"];
    assert!(!told.iter().any(|told| absent.iter().any(|name| told.starts_with(name))), "{told:?}");
}

#[test]
fn numbers_of_every_kind_are_what_they_are_to_everybody() {
    let numbers = json!({"numbers": {
        "a": i64::MIN, "b": u32::MAX, "c": u64::MAX, "d": i32::MIN, "e": i64::MIN, "f": u32::MAX, "g": u64::MAX, "h": -1,
        "i": -1, "j": -1.5, "k": true, "l": "AAEC", "m": [1, -1], "n": {"-3": true}, "o": 0,
    }});
    let mut told = told(&numbers);
    told.retain(|told| told.starts_with("numbers."));
    let expected = [
        "a=-9223372036854775808",
        "b=4294967295",
        "c=18446744073709551615",
        "d=-2147483648",
        "e=-9223372036854775808",
        "f=4294967295",
        "g=18446744073709551615",
        "h=-1",
        "i=-1",
        "j=-1.5",
        "k=true",
        "l=AAEC",
        "m=1",
        "m=-1",
        "n={}",
        "n.-3=true",
        "o=0",
    ];
    assert_eq!(told, expected.map(|told| format!("numbers.{told}")));
}

/// What no sound client sends, and readers differ over.
#[test]
fn what_two_servers_could_read_differently_is_refused() {
    let call = create();
    for (name, bytes) in [
        ("a field that nobody declared", &b"\x98\x06\x01"[..]),
        ("one in an item", b"\x22\x03\x98\x06\x01"),
        ("an amount twice", b"\x08\x01\x08\xe8\x07"),
        ("a message twice", b"\x52\x00\x52\x00"),
        ("two of a choice", b"\x32\x01x\x38\x01"),
        ("a number as text", b"\x0a\x01x"),
        ("a text as a number", b"\x10\x01"),
        ("an amount of 64 bits", b"\x08\xff\xff\xff\xff\xff\x01"),
        ("a flag that is neither", b"\x38\x02"),
        ("a text that is none", b"\x12\x01\xff"),
        ("a group", b"\x0b\x0c"),
        ("field 0", b"\x00\x01"),
        ("a number without end", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("a text that is cut off", b"\x12\x05ab"),
        ("a key twice", b"\x2a\x06\x0a\x01a\x12\x01b\x2a\x06\x0a\x01a\x12\x01c"),
        ("a key twice in an entry", b"\x2a\x06\x0a\x01a\x0a\x01b"),
        ("an Any", b"\x4a\x00"),
    ] {
        assert!(fields::of(&call.input, bytes).is_err(), "{name} was read");
    }
    assert!(fields::of(&call.input, b"\x08\x01\x12\x01x\x52\x00").is_ok());
}

#[test]
fn a_message_takes_no_more_memory_than_it_may() {
    let call = create();
    // Each of these is two bytes, and has a page of defaults in JSON.
    let items = b"\x22\x00".repeat(100_000);
    assert!(fields::of(&call.input, &items).unwrap_err().contains("longer"));
    let deep = (0..200).fold(Vec::new(), |inner, _| {
        let mut outer = Vec::new();
        super::wire::put(10, &inner, &mut outer);
        outer
    });
    assert!(fields::of(&call.input, &deep).unwrap_err().contains("deeper"));
}

#[test]
fn a_call_with_one_message_is_read_with_it_and_no_other() {
    let call = create();
    let order = message(&call.input, &json!({"amount": 7}));
    assert!(call.fields(&framed(&order)).unwrap().contains(&("amount".into(), "7".into())));
    assert_eq!(call.fields(b"").unwrap(), []);
    assert!(call.fields(&[framed(&order), framed(&order)].concat()).is_err());
    assert!(call.fields(&order).is_err());
    assert!(call.body_of_json("{\"amuont\": 7}").unwrap_err().contains("acme.shop.Order"));
}

#[test]
fn a_file_that_is_no_set_of_descriptors_is_told_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.binpb");
    let why = Descriptors::read(&path).unwrap_err();
    assert!(why.contains("shop.binpb can't be read"), "{why}");
    std::fs::write(&path, b"syntax = \"proto3\";").unwrap();
    let why = Descriptors::read(&path).unwrap_err();
    assert!(why.contains("shop.binpb") && why.contains("--include_imports"), "{why}");
    std::fs::write(&path, b"").unwrap();
    assert!(Descriptors::read(&path).unwrap_err().contains("it has no service"));
    assert!(descriptors().call("acme.shop.Orders/Delete").is_none());
}

/// A receipt as masks show it; what is masked by which columns.
fn shown(columns: &str, receipt: &[u8]) -> Result<Value, String> {
    let message = DynamicMessage::decode(create().output, &*written(columns, receipt)?).unwrap();
    Ok(serde_json::to_value(&message).unwrap())
}

/// The same as it is sent.
fn written(columns: &str, receipt: &[u8]) -> Result<Vec<u8>, String> {
    let bundle = format!(
        "{{tidegate: 1, name: it, subjects: {{tester: {{users: ['0']}}}}, resources: {{it: {{protocol: http, addresses: \
         ['it.test:443']}}}}, rules: [{{name: all, subjects: [tester], resources: [it], allow: [{{}}], masks: [all]}}], \
         masks: {{all: {{columns: [{columns}], content: [card], show: {{keep-last: 4}}}}}}}}"
    );
    let file = SourceFile { path: "it.yaml".into(), text: bundle };
    let policy = Policy::load(&[file], &[&VOCABULARY]).unwrap();
    let principal = Principal { subjects: vec!["tester".into()], ..Principal::default() };
    let items = vec![Item { fields: vec![("action", Seen::Word("request"))], must_name: None }];
    let verdict = policy.decide(&principal, "it", &Shape { items, open: true, ..Shape::default() });
    let masker = Masker::new(Secret::new(vec![7; 32]));
    masked(&create().output, receipt, &Masks::of(&verdict, &masker).unwrap())
}

#[test]
fn a_masked_field_is_shown_as_its_mask_says_and_what_is_no_text_is_left_out() {
    let output = create().output;
    let receipt = message(
        &output,
        &json!({
            "id": "r-1", "cardNumber": "4111 1111 1111 1111", "emails": ["ada@x.example", "bob@x.example"], "account": 12_345_678,
            "order": {"amount": 7, "customerName": "Ada", "labels": {"a": "secret", "b": "open"}},
            "items": {"cup": {"name": "cup", "price": 2}, "pot": {"name": "pot", "price": 3}}, "codes": [1, 2, 3],
        }),
    );
    let columns = "body.card_number, body.emails, body.account, body.order.customerName, body.order.labels.a, body.items.cup, body.codes";
    assert_eq!(
        shown(columns, &receipt).unwrap(),
        json!({
            "id": "r-1", "cardNumber": "***************1111", "emails": ["*********mple", "*********mple"],
            "order": {"amount": 7, "customerName": "***", "labels": {"a": "**cret", "b": "open"}},
            "items": {"cup": {}, "pot": {"name": "pot", "price": 3.0}},
        })
    );
}

#[test]
fn content_is_found_in_texts_numbers_bytes_and_keys() {
    let output = create().output;
    let receipt = message(
        &output,
        &json!({
            "id": "card 4111111111111111", "account": "4111111111111111", "image": "NDExMTExMTExMTExMTExMQ==",
            "order": {"labels": {"4111111111111111": "x"}},
        }),
    );
    assert_eq!(
        shown("body.none", &receipt).unwrap(),
        json!({"id": "card ************1111", "image": "KioqKioqKioqKioqMTExMQ==", "order": {"labels": {"************1111": "x"}}})
    );
}

#[test]
fn what_is_not_masked_stays_byte_for_byte_and_what_nobody_declared_is_refused() {
    let output = create().output;
    let receipt =
        message(&output, &json!({"id": "r-1", "account": 7, "codes": [1, -1], "order": {"amount": 1}}));
    let bundle_masks = |bytes: &[u8]| written("body.cardNumber", bytes);
    assert_eq!(bundle_masks(&receipt).unwrap(), receipt);
    for unknown in [&b"\x98\x06\x01"[..], b"\x22\x03\x98\x06\x01", b"\x22\x02\x4a\x00"] {
        assert!(bundle_masks(&[&receipt, unknown].concat()).is_err(), "{unknown:x?}");
    }
}

/// What prost-reflect makes of a message that is read, as JSON without what is absent; none, where it knows better.
fn oracle(bytes: &[u8]) -> Option<Value> {
    let message = DynamicMessage::decode(create().input, bytes).ok()?;
    let options = SerializeOptions::new().skip_default_fields(false).stringify_64_bit_integers(false);
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut text);
    message.serialize_with_options(&mut writer, &options).ok()?;
    let mut value = serde_json::from_slice(&text).ok()?;
    as_it_means(&mut value);
    Some(value)
}

/// The same without what is absent, and with numbers as their values: `0.0` is `0`.
fn as_it_means(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(as_it_means);
        }
        Value::Array(values) => values.iter_mut().for_each(as_it_means),
        Value::Number(number) if number.is_f64() => {
            *value = Value::String((number.as_f64().unwrap() + 0.0).to_string());
        }
        Value::Number(number) => *value = Value::String(number.to_string()),
        _ => {}
    }
}

/// What we read there, if anything.
fn ours(bytes: &[u8]) -> Option<Value> {
    let text = fields::shown(&create().input, bytes).ok()?;
    let mut value = serde_json::from_slice(&text).unwrap();
    as_it_means(&mut value);
    Some(value)
}

#[test]
fn numbers_with_and_without_a_fraction_mean_the_same_to_others() {
    let price = |price: f64| [&b"\x22\x09\x11"[..], &price.to_le_bytes()].concat();
    let prices = [0.0, -0.0, 2.0, 1.5, 1e18, 1e300, -1e-7, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let of_defaults = [&b"\x08\x08\x5a\x00"[..], b"\x22\x00"].map(<[u8]>::to_vec);
    for bytes in prices.map(price).into_iter().chain(of_defaults) {
        assert_eq!(ours(&bytes).unwrap(), oracle(&bytes).unwrap(), "{bytes:x?}");
    }
}

proptest::proptest! {
    /// Whatever is read at all means what it means to an independent reader.
    #[test]
    fn what_is_read_means_the_same_to_others(
        bytes in proptest::collection::vec(proptest::sample::select(b"\x08\x12\x18\x22\x2a\x32\x38\x42\x52\x5a\x00\x01\x02\x03\x04\x0aA\x7f\x80\xff".to_vec()), 0..24),
    ) {
        if let Some(ours) = ours(&bytes) {
            proptest::prop_assert_eq!(Some(ours), oracle(&bytes));
        }
    }

    #[test]
    fn what_a_mask_covers_is_in_no_message_that_is_shown(name in "[a-z]{5,20}", amount in 0..1000_i32) {
        let receipt = message(&create().output, &json!({"order": {"customerName": name, "amount": amount}, "id": "r"}));
        let shown = shown("body.order.customerName", &receipt).unwrap();
        proptest::prop_assert!(!shown.to_string().contains(&name));
        proptest::prop_assert_eq!(shown["order"]["amount"].as_i64().unwrap_or_default(), i64::from(amount));
    }
}
