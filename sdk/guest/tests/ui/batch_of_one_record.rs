use millstream_guest::prelude::*;

#[batch]
fn decide(record: &Record, out: &mut Decisions) {
    if record.value().is_none() {
        out.drop(0);
    }
}

fn main() {}
