use millstream_guest::prelude::*;

#[derive(Params)]
struct Params {
    /// How long to wait.
    patience: std::time::Duration,
}

#[filter]
fn keep(_: &Record, params: &Params) -> bool {
    params.patience.is_zero()
}

fn main() {}
