use millstream_guest::prelude::*;

#[map]
fn upper(record: &Record) -> Decision {
    Decision::Keep
}

fn main() {}
