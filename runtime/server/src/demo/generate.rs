//! The synthetic records of the demonstration. A record is drawn from the seed and its number alone, so that whoever
//! checks it makes it anew instead of remembering it.

use std::fmt::Write as _;

/// Every draw begins here.
const SEED: u64 = 0x6d69_6c6c_7374_7265;
/// 2026-01-01T00:00:00Z, when the records begin.
const START_MS: i64 = 1_767_225_600_000;

const FIRST_NAMES: [&str; 8] = ["Ida", "Tom", "Zoë", "Mehmet", "Anna", "José", "Freya", "Lukas"];
const LAST_NAMES: [&str; 8] = [
    "Novak",
    "Berger",
    "Okafor",
    "Lindqvist",
    "Moreau",
    "Tanaka",
    "Silva",
    "Kowalski",
];
const STREETS: [&str; 6] = [
    "Mill Lane",
    "Hauptstraße",
    "Rue du Moulin",
    "Calle Mayor",
    "Storgatan",
    "Via Roma",
];
const CITIES: [(&str, &str); 6] = [
    ("Leeds", "GB"),
    ("Köln", "DE"),
    ("Lyon", "FR"),
    ("Sevilla", "ES"),
    ("Uppsala", "SE"),
    ("Torino", "IT"),
];
const GOODS: [(&str, u32); 8] = [
    ("stoneware mug", 1_450),
    ("linen tea towel", 990),
    ("oak cutting board", 3_900),
    ("rye flour, 2.5 kg", 620),
    ("bread knife", 4_250),
    ("proofing basket", 1_890),
    ("kitchen scale", 2_790),
    ("enamel baking tin", 2_150),
];
const CARRIERS: [&str; 4] = ["dhl", "ups", "dpd", "postnord"];
const PAGES: [&str; 5] = ["/", "/products", "/cart", "/checkout", "/account"];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];
const REGIONS: [&str; 4] = ["eu-west-1", "eu-north-1", "us-east-1", "ap-south-1"];
const SERIES: [(&str, &str, u32); 5] = [
    ("http.request.duration", "ms", 900),
    ("cpu.utilisation", "percent", 100),
    ("memory.resident", "MiB", 4_096),
    ("disk.write.rate", "MiB/s", 550),
    ("queue.depth", "records", 2_000),
];

/// A record as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key; it chooses the partition.
    pub key: Option<String>,
    /// A JSON object whose first member is `seq`, the record's number.
    pub value: String,
}

/// What the records of a topic look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// About 640 bytes, with an e-mail address and a card number; the key is the order.
    Order,
    /// About 160 bytes; the key is the user.
    UserEvent,
    /// About 150 bytes; no key.
    Metric,
}

impl Shape {
    /// The record of this number.
    pub fn sample(self, seq: u64) -> Sample {
        match self {
            Shape::Order => Order::draw(seq).sample(),
            Shape::UserEvent => UserEvent::draw(seq).sample(),
            Shape::Metric => Metric::draw(seq).sample(),
        }
    }

    /// The generator of one record: shapes and numbers each have their own stream.
    fn draws(self, seq: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(SEED ^ ((self as u64 + 1) << 48) ^ seq)
    }
}

/// An order in a shop.
#[derive(Debug)]
pub struct Order {
    seq: u64,
    /// The customer's address.
    pub email: String,
    /// Sixteen digits.
    pub card_number: String,
    draws: fastrand::Rng,
}

impl Order {
    /// The order of this number.
    pub fn draw(seq: u64) -> Order {
        let mut draws = Shape::Order.draws(seq);
        let email = format!("customer.{:05}@example.org", draws.u32(..60_000));
        let card_number = format!("4000{:012}", draws.u64(..1_000_000_000_000));
        Order {
            seq,
            email,
            card_number,
            draws,
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            timestamp_ms: self.timestamp_ms(),
            key: Some(format!("order-{}", self.seq)),
            value: self.json(&self.email, &self.card_number),
        }
    }

    fn timestamp_ms(&self) -> i64 {
        START_MS + self.seq as i64 * 250
    }

    /// The order with this in the place of the e-mail address and the card number.
    pub fn json(&self, email: &str, card_number: &str) -> String {
        let mut draws = self.draws.clone();
        let (first, last) = (pick(&mut draws, &FIRST_NAMES), pick(&mut draws, &LAST_NAMES));
        let (city, country) = pick(&mut draws, &CITIES);
        let mut json = format!(
            r#"{{"seq":{seq},"order":"order-{seq}","placed_at":{at},"status":"paid","customer":{{"id":"c-{customer:05}","name":"{first} {last}","email":"{email}","country":"{country}"}},"payment":{{"method":"card","card":{{"number":"{card_number}","expires":"{month:02}/{year}"}},"authorised":true}},"shipping":{{"street":"{street} {house}","city":"{city}","postcode":"{postcode:05}","carrier":"{carrier}"}},"items":["#,
            seq = self.seq,
            at = self.timestamp_ms(),
            customer = draws.u32(..60_000),
            month = draws.u32(1..=12),
            year = draws.u32(27..=31),
            street = pick(&mut draws, &STREETS),
            house = draws.u32(1..=180),
            postcode = draws.u32(10_000..99_999),
            carrier = pick(&mut draws, &CARRIERS),
        );
        let mut total_cents = 0;
        for i in 0..draws.u32(2..=4) {
            let (name, price_cents) = pick(&mut draws, &GOODS);
            let quantity = draws.u32(1..=3);
            total_cents += quantity * price_cents;
            let comma = if i == 0 { "" } else { "," };
            let sku = draws.u32(..100_000);
            append(
                &mut json,
                format_args!(
                    r#"{comma}{{"sku":"M-{sku:05}","name":"{name}","quantity":{quantity},"price_cents":{price_cents}}}"#
                ),
            );
        }
        append(
            &mut json,
            format_args!(r#"],"total_cents":{total_cents},"currency":"EUR"}}"#),
        );
        json
    }
}

/// Something that a visitor of the shop did.
#[derive(Debug)]
pub struct UserEvent {
    seq: u64,
    /// What it was; every fourth event is a heartbeat.
    pub event: &'static str,
    draws: fastrand::Rng,
}

impl UserEvent {
    /// The event of this number.
    pub fn draw(seq: u64) -> UserEvent {
        let mut draws = Shape::UserEvent.draws(seq);
        let event = match draws.u32(..100) {
            0..25 => "heartbeat",
            25..70 => "page_view",
            70..85 => "search",
            85..95 => "add_to_cart",
            _ => "checkout",
        };
        UserEvent { seq, event, draws }
    }

    fn sample(self) -> Sample {
        let UserEvent { seq, event, mut draws } = self;
        let timestamp_ms = START_MS + seq as i64 * 40;
        let user = format!("user-{:05}", draws.u32(..20_000));
        let value = format!(
            r#"{{"seq":{seq},"at":{timestamp_ms},"user":"{user}","event":"{event}","page":"{page}/{item}","session":"{session:08x}","device":"{device}","country":"{country}","took_ms":{took_ms}}}"#,
            page = pick(&mut draws, &PAGES),
            item = draws.u32(100..10_000),
            session = draws.u32(..),
            device = pick(&mut draws, &DEVICES),
            country = pick(&mut draws, &CITIES).1,
            took_ms = draws.u32(10..900),
        );
        Sample {
            timestamp_ms,
            key: Some(user),
            value,
        }
    }
}

/// A measurement of a machine.
#[derive(Debug)]
pub struct Metric {
    seq: u64,
    /// Where the machine works; every fifth measurement is not from production.
    pub env: &'static str,
    draws: fastrand::Rng,
}

impl Metric {
    /// The measurement of this number.
    pub fn draw(seq: u64) -> Metric {
        let mut draws = Shape::Metric.draws(seq);
        let env = if draws.u32(..100) < 20 { "staging" } else { "prod" };
        Metric { seq, env, draws }
    }

    fn sample(self) -> Sample {
        let Metric { seq, env, mut draws } = self;
        let timestamp_ms = START_MS + seq as i64 * 10;
        let (metric, unit, range) = pick(&mut draws, &SERIES);
        let value = format!(
            r#"{{"seq":{seq},"at":{timestamp_ms},"host":"node-{host:03}","env":"{env}","region":"{region}","metric":"{metric}","value":{whole}.{part:03},"unit":"{unit}"}}"#,
            host = draws.u32(..400),
            region = pick(&mut draws, &REGIONS),
            whole = draws.u32(..range),
            part = draws.u32(..1_000),
        );
        Sample {
            timestamp_ms,
            key: None,
            value,
        }
    }
}

fn pick<T: Copy>(draws: &mut fastrand::Rng, from: &[T]) -> T {
    from[draws.usize(..from.len())]
}

fn append(json: &mut String, text: std::fmt::Arguments<'_>) {
    json.write_fmt(text).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json(sample: &Sample) -> Value {
        serde_json::from_str(&sample.value).unwrap()
    }

    #[test]
    fn a_record_is_drawn_from_its_number_alone() {
        for shape in [Shape::Order, Shape::UserEvent, Shape::Metric] {
            let backwards: Vec<_> = (0..100).rev().map(|seq| shape.sample(seq)).collect();
            for (sample, seq) in backwards.iter().rev().zip(0..100) {
                assert_eq!(*sample, shape.sample(seq));
                assert_eq!(json(sample)["seq"], seq);
            }
            assert_ne!(backwards[0].value, backwards[1].value);
        }
    }

    #[test]
    fn records_have_the_sizes_of_their_shapes() {
        for (shape, bytes) in [(Shape::Order, 640), (Shape::UserEvent, 160), (Shape::Metric, 150)] {
            let total: usize = (0..2_000).map(|seq| shape.sample(seq * 40).value.len()).sum();
            let mean = total / 2_000;
            assert!(mean.abs_diff(bytes) <= bytes / 20, "{shape:?}: {mean} bytes on average");
        }
    }

    #[test]
    fn an_order_has_its_key_an_address_and_a_card() {
        let (order, sample) = (Order::draw(17), Shape::Order.sample(17));
        assert_eq!(sample.key.as_deref(), Some("order-17"));
        assert_eq!(json(&sample)["customer"]["email"], order.email.as_str());
        assert_eq!(json(&sample)["payment"]["card"]["number"], order.card_number.as_str());
        assert_eq!(order.card_number.len(), 16);
    }

    #[test]
    fn an_event_is_keyed_by_its_user_and_a_metric_by_nothing() {
        let event = Shape::UserEvent.sample(4);
        assert_eq!(event.key.as_deref(), json(&event)["user"].as_str());
        assert_eq!(Shape::Metric.sample(4).key, None);
    }

    #[test]
    fn a_quarter_of_the_events_and_a_fifth_of_the_metrics_are_noise() {
        let heartbeats = (0..10_000).filter(|seq| UserEvent::draw(*seq).event == "heartbeat");
        let staging = (0..10_000).filter(|seq| Metric::draw(*seq).env == "staging");
        assert!(heartbeats.count().abs_diff(2_500) < 150);
        assert!(staging.count().abs_diff(2_000) < 150);
    }
}
