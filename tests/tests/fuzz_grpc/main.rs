//! Every method of the contract under random input: messages of random fields, valid ones with damaged bytes, and what is no
//! message at all. However bad it is, the answer is no defect and says why, and the agent keeps what it holds.
//!
//! The seed is the same in every run; `MILLSTREAM_FUZZ_SEED` names another one, and `MILLSTREAM_FUZZ_CALLS` how many calls each
//! method gets of random input.
//!
//! | file | owns |
//! |---|---|
//! | `fixture` | an agent with something of everything, which requests can name |
//! | `valid` | requests that are right, of every method |
//! | `fields` | messages of random fields, out of the descriptors |
//! | `damage` | bytes that are damaged, and frames that are none |
//! | `judge` | what no answer may be |

mod damage;
mod fields;
mod fixture;
mod judge;
mod valid;

use std::{collections::BTreeMap, time::Duration};

use fields::Fields;
use fixture::Fixture;
use millstream_proto::DESCRIPTORS;
use millstream_tests::{
    Random,
    raw::{self, Body, Ending},
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::Code;

const SEED: u64 = 1;
const CALLS: u64 = 45;
/// Messages that a client sends over one stream, at most.
const MESSAGES_MAX: u64 = 4;
/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one is waited for that may rightly never come.
const GLANCE: Duration = Duration::from_millis(100);
/// The methods that wait for records or lines, and go on until their client ends.
const WAITING: [&str; 3] = ["Fetch", "Subscribe", "ModuleLogs"];

/// The methods of all services of the contract.
fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the contract describes itself");
    let services = pool
        .services()
        .filter(|service| service.package_name() == "millstream.v1");
    let methods: Vec<_> = services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    assert!(!methods.is_empty(), "the contract has methods");
    methods
}

fn number(variable: &str, or: u64) -> u64 {
    let number = std::env::var(variable).ok().map(|text| text.parse());
    let number = number.transpose().unwrap_or_else(|_| panic!("{variable} is a number"));
    number.unwrap_or(or)
}

/// The body of one call, as bad as chance will have it.
fn random_body(method: &MethodDescriptor, fixture: &mut Fixture, random: &mut Random) -> Body {
    let count = match method.is_client_streaming() {
        true => random.within(1..MESSAGES_MAX + 1),
        false => 1,
    };
    match random.within(0..3) {
        0 => {
            let mut fields = Fields::new(random, fixture);
            let messages = (0..count).map(|_| fields.message(&method.input()).encode_to_vec());
            Body::of(messages)
        }
        1 => {
            let mut messages = pick(valid::calls(method.full_name(), fixture), random);
            let damaged = random.within(0..messages.len() as u64) as usize;
            messages[damaged] = damage::bytes(&messages[damaged], random);
            Body::of(messages)
        }
        _ => {
            let messages = pick(valid::calls(method.full_name(), fixture), random);
            damage::frames(Body::of(messages), random)
        }
    }
}

fn pick<T>(mut all: Vec<T>, random: &mut Random) -> T {
    let at = random.within(0..all.len() as u64) as usize;
    all.swap_remove(at)
}

async fn call(fixture: &Fixture, method: &MethodDescriptor, body: &Body) -> Ending {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let patience = if may_wait(method) { GLANCE } else { PATIENCE };
    raw::call(fixture.channel(), &path, body, patience).await
}

/// Whether it may be right that there is no answer yet.
fn may_wait(method: &MethodDescriptor) -> bool {
    WAITING.contains(&method.name())
}

/// A word for how a call ended.
fn word(ending: &Ending) -> String {
    match ending {
        Ending::Answered { status, .. } => format!("{:?}", status.code()),
        Ending::Silent => "Waits".to_owned(),
        Ending::Broken(_) => "Broken".to_owned(),
    }
}

/// Calls a method with what is right, then with what is not. How often it ended how.
async fn fuzz(
    method: &MethodDescriptor,
    fixture: &mut Fixture,
    random: &mut Random,
    calls: u64,
) -> BTreeMap<String, u64> {
    let mut endings = BTreeMap::new();
    fixture.restore().await;
    for messages in valid::calls(method.full_name(), fixture) {
        let body = Body::of(messages);
        let ending = call(fixture, method, &body).await;
        let place = format!("a valid {}", method.full_name());
        judge::check(method, &ending, &body, &place);
        assert!(ending.is_ok(), "{place}: {ending:?}");
        fixture.restore().await;
    }
    for number in 0..calls {
        let body = random_body(method, fixture, random);
        let ending = call(fixture, method, &body).await;
        let place = format!("call {number} of {}", method.full_name());
        judge::check(method, &ending, &body, &place);
        if ending.is_ok() && fixture::takes_away(method.name()) {
            fixture.restore().await;
        }
        *endings.entry(word(&ending)).or_default() += 1;
    }
    endings
}

#[tokio::test(flavor = "multi_thread")]
async fn no_input_makes_an_answer_a_defect_or_harms_the_agent() {
    let seed = number("MILLSTREAM_FUZZ_SEED", SEED);
    let calls = number("MILLSTREAM_FUZZ_CALLS", CALLS);
    // Shown where the test fails.
    println!("MILLSTREAM_FUZZ_SEED={seed}");
    let mut fixture = Fixture::make().await;
    for (number, method) in (0..).zip(methods()) {
        // Each method has choices of its own, whatever those before it took.
        let mut random = Random::from_seed(seed.wrapping_mul(1_000).wrapping_add(number));
        let endings = fuzz(&method, &mut fixture, &mut random, calls).await;
        println!("{}: {endings:?}", method.full_name());
        fixture.assert_sound(method.full_name());
    }
    fixture.assert_keeps_its_records_over_a_restart().await;
}

#[tokio::test]
async fn what_no_service_has_is_refused_with_its_reason() {
    let fixture = Fixture::make().await;
    let paths = [
        ("/millstream.v1.ProducerService/Absent", "METHOD_UNKNOWN", "Absent"),
        (
            "/millstream.v1.AbsentService/Produce",
            "SERVICE_UNKNOWN",
            "millstream.v1.AbsentService",
        ),
        (
            "/millstream.v2.ProducerService/Produce",
            "SERVICE_UNKNOWN",
            "millstream.v2.ProducerService",
        ),
        ("/", "SERVICE_UNKNOWN", "/"),
        ("/a/b/c%ff", "SERVICE_UNKNOWN", "/a/b/c%ff"),
    ];
    for (path, reason, word) in paths {
        let ending = raw::call(fixture.channel(), path, &Body::of([Vec::new()]), PATIENCE).await;
        let status = ending.status();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
        assert_eq!(judge::reason(&status).as_deref(), Some(reason), "{path}: {status:?}");
        assert!(status.message().contains(word), "{path}: {status:?}");
    }
    fixture.assert_sound("what no service has");
}
