use millstream_guest::prelude::*;

#[filter]
struct Keep;

fn main() {}
