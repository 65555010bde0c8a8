use millstream_guest::prelude::*;

#[derive(Choice)]
enum Mode {
    Keep,
    Drop(u32),
}

fn main() {}
