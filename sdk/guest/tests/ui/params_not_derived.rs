use millstream_guest::prelude::*;

struct Params {
    bytes_min: u64,
}

#[filter]
fn keep(record: &Record, params: &Params) -> bool {
    record.value().is_some_and(|value| value.len() as u64 >= params.bytes_min)
}

fn main() {}
