//! Messages of random fields, out of the descriptors: some name what there is, so that they get deep, and some are as odd as
//! their types allow.

use std::collections::HashMap;

use millstream_tests::Random;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::{
    damage,
    fixture::{Fixture, GROUP, KEPT, MEMBERS, MODULE, PRODUCER, SPARE, SPARE_GROUP, TOPIC},
};

/// Values of one repeated field, seldom.
const MANY: u64 = 300;
/// Above it no topic is made of a random number, up to what is refused: nothing is learned of it, and it takes long.
const PARTITIONS_MAX: u64 = 8;
const REFUSED_PARTITIONS: u64 = 100_001;
const LONG_TEXT: usize = 100_000;

const ODD_TEXTS: [&str; 14] = [
    "",
    " ",
    ".",
    "..",
    "../../../etc/passwd",
    "a b",
    "\0",
    "line\r\nline",
    "schlüssel",
    "\u{202e}right to left",
    "\u{feff}\u{10ffff}",
    "👩‍👩‍👧‍👧",
    "%s%n{}",
    "'; DROP TABLE topics; --",
];

/// Makes messages.
pub struct Fields<'a> {
    random: &'a mut Random,
    fixture: &'a Fixture,
}

impl<'a> Fields<'a> {
    pub fn new(random: &'a mut Random, fixture: &'a Fixture) -> Fields<'a> {
        Fields { random, fixture }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.random.within(0..count) == 0
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.random.within(0..choices.len() as u64) as usize].clone()
    }

    /// A message in which some fields are set.
    pub fn message(&mut self, descriptor: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let fields: Vec<_> = descriptor.fields().collect();
        for field in &fields {
            // Of a oneof the last one that is set stays.
            let is_choice = field.containing_oneof().is_some();
            if !self.one_in(if is_choice { 2 } else { 5 }) {
                let value = self.field(field);
                message.set_field(field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else {
                unreachable!("a map is a list of entries");
            };
            let of_entry = entry.map_entry_value_field();
            let count = self.count(field);
            let entries = (0..count).map(|_| (MapKey::String(self.odd_text()), self.value(&of_entry)));
            return Value::Map(entries.collect::<HashMap<_, _>>());
        }
        match field.is_list() {
            true => Value::List((0..self.count(field)).map(|_| self.value(field)).collect()),
            false => self.value(field),
        }
    }

    /// How many values a repeated field has.
    fn count(&mut self, field: &FieldDescriptor) -> u64 {
        match self.one_in(20) {
            // Many of what has many itself would be more than a message may be.
            true if !matches!(field.kind(), Kind::Message(_)) || self.one_in(4) => MANY,
            _ => self.random.within(0..4),
        }
    }

    fn value(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Bool => Value::Bool(self.one_in(2)),
            Kind::Double => Value::F64(f64::from_bits(self.random.number())),
            Kind::Float => Value::F32(f32::from_bits(self.random.number() as u32)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.number() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.number() as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.number_for(field) as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.number()),
            Kind::String => Value::String(self.text(field)),
            Kind::Bytes => Value::Bytes(self.bytes(field).into()),
            Kind::Message(message) => Value::Message(self.message(&message)),
            Kind::Enum(values) => {
                let known: Vec<_> = values.values().map(|value| value.number()).collect();
                match self.one_in(4) {
                    true => Value::EnumNumber(self.one_of(&[-1, 99, i32::MAX, i32::MIN])),
                    false => Value::EnumNumber(self.one_of(&known)),
                }
            }
        }
    }

    fn number(&mut self) -> u64 {
        let edges = [
            127,
            128,
            u64::from(u16::MAX),
            i32::MAX as u64,
            u64::from(u32::MAX),
            i64::MAX as u64,
            u64::MAX,
        ];
        match self.random.within(0..8) {
            0..4 => self.random.within(0..4),
            4 => self.one_of(&edges),
            // Beside one.
            5 => self.one_of(&edges).wrapping_add(1),
            6 => i64::MIN as u64,
            _ => self.random.number(),
        }
    }

    fn number_for(&mut self, field: &FieldDescriptor) -> u64 {
        match self.number() {
            number if field.name() != "partitions" => number,
            number @ (0..=PARTITIONS_MAX | REFUSED_PARTITIONS..) if number as u32 as u64 == number => number,
            _ => PARTITIONS_MAX,
        }
    }

    fn text(&mut self, field: &FieldDescriptor) -> String {
        let known = self.known(field);
        match known.is_empty() || self.one_in(3) {
            true => self.odd_text(),
            false => self.one_of(&known),
        }
    }

    /// What there is of this name.
    fn known(&self, field: &FieldDescriptor) -> Vec<String> {
        let owner = field.parent_message().name().to_owned();
        let reads = [
            "Fetch",
            "Produce",
            "Partition",
            "Offset",
            "Heartbeat",
            "Subscribe",
            "GetTopic",
        ];
        let changes = ["CreateTopic", "AlterTopic", "TruncateTopic", "DeleteTopic"];
        let names: &[&str] = match field.name() {
            "name" if changes.iter().any(|name| owner.starts_with(name)) => &[SPARE],
            "name" if owner == "DeleteGroupRequest" => &[SPARE_GROUP],
            "name" if owner.contains("Group") => &[GROUP, MEMBERS],
            "name" if owner.contains("Module") => &[MODULE],
            // Nothing that changes a topic names the one whose records are kept.
            "topic" | "topics" | "name" if reads.iter().any(|name| owner.contains(name)) => &[KEPT, TOPIC],
            "topic" | "topics" | "dead_letter_topic" => &[TOPIC],
            "group" if owner == "HeartbeatRequest" => &[MEMBERS],
            "group" => &[GROUP, MEMBERS],
            "module" => &[MODULE],
            "producer_name" => &[PRODUCER],
            "member_id" => return vec![self.fixture.member_id.clone(), String::new()],
            _ => &[],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn odd_text(&mut self) -> String {
        match self.random.within(0..8) {
            0 => "x".repeat(self.random.within(245..255) as usize),
            1 if self.one_in(4) => "x".repeat(LONG_TEXT),
            2 => format!("name-{}", self.random.within(0..10)),
            3 => (0..self.random.within(0..20)).map(|_| self.character()).collect(),
            _ => self.one_of(&ODD_TEXTS).to_owned(),
        }
    }

    fn character(&mut self) -> char {
        // What is a surrogate is no character.
        char::from_u32(self.random.within(0..0x11_0000) as u32).unwrap_or('\u{fffd}')
    }

    fn bytes(&mut self, field: &FieldDescriptor) -> Vec<u8> {
        let good = match field.name() {
            "batch" => self.fixture.batch(),
            "component" => self.fixture.component(),
            _ => Vec::new(),
        };
        match self.random.within(0..4) {
            0 => damage::noise(self.random),
            1 => damage::bytes(&good, self.random),
            _ => good,
        }
    }
}
