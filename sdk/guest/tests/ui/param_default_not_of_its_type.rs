use millstream_guest::prelude::*;

#[derive(Params)]
struct Params {
    #[param(default = "many")]
    bytes_min: u64,
}

fn main() {}
