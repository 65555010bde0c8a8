use millstream_guest::prelude::*;

#[filter]
fn keep(record: Record) -> bool {
    record.value().is_some()
}

fn main() {}
