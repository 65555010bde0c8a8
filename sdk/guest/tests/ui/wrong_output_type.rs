use millstream_guest::prelude::*;

#[map]
fn upper(record: &Record, out: &mut Vec<u8>) -> Decision {
    out.extend(record.value().unwrap_or_default());
    Decision::Replace
}

fn main() {}
