use millstream_guest::prelude::*;

#[derive(Params)]
struct Params {
    #[param(defualt = 1)]
    bytes_min: u64,
}

fn main() {}
