use millstream_guest::prelude::*;

#[map]
fn upper(record: &Record, out: &mut Output) {
    out.set_value(record.value().unwrap_or_default().to_ascii_uppercase());
}

fn main() {}
