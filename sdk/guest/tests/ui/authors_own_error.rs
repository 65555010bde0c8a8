use millstream_guest::prelude::*;

#[map]
fn upper(record: &Record, out: &mut Output) -> Decision {
    out.set_value(record.value());
    Decision::Replace
}

fn main() {}
