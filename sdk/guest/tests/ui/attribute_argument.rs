use millstream_guest::prelude::*;

#[filter(on = "fetch")]
fn keep(record: &Record) -> bool {
    record.value().is_some()
}

fn main() {}
