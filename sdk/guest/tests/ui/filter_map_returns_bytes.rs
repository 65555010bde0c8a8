use millstream_guest::prelude::*;

#[filter_map]
fn upper(record: &Record, out: &mut Output) -> Option<Vec<u8>> {
    out.set_key(b"k");
    record.value().map(<[u8]>::to_ascii_uppercase)
}

fn main() {}
