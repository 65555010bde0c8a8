use millstream_guest::prelude::*;

#[filter]
fn keep(record: &Record) -> bool {
    record.value().is_some()
}

#[filter]
fn keep_keyed(record: &Record) -> bool {
    record.key().is_some()
}

fn main() {}
