use millstream_guest::prelude::*;

/// The argument is what a newcomer may expect: the value.
#[filter]
fn keep(value: &[u8]) -> bool {
    value.is_empty()
}

fn main() {}
