use millstream_guest::prelude::*;

#[filter]
fn keep(record: &Record) -> usize {
    record.value().map_or(0, <[u8]>::len)
}

fn main() {}
