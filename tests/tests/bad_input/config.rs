//! Settings that do not exist or make no sense.

use std::fs;

use millstream_tests::{Setup, run};

use crate::assert_says;

fn with_file(text: &str) -> Setup {
    let setup = Setup::new();
    let file = setup.folder().join("agent.toml");
    fs::write(&file, text).unwrap();
    setup.flag("--config").flag(file)
}

#[test]
fn an_unknown_key_in_the_file_is_named_with_the_nearest_one() {
    let ended = with_file("segment_byts = 65536\n")
        .try_start()
        .expect_err("an unknown key");
    assert_says(
        ended.error(),
        &["segment_byts ", "agent.toml", "nearest known key is segment_bytes"],
    );
}

#[test]
fn an_unknown_key_in_the_environment_is_named_with_the_nearest_one() {
    let setup = Setup::new().env("MILLSTREAM_WAL_SINC", "always");
    let ended = setup.try_start().expect_err("an unknown key");
    assert_says(
        ended.error(),
        &["MILLSTREAM_WAL_SINC", "environment", "MILLSTREAM_WAL_SYNC"],
    );
}

#[test]
fn a_value_that_makes_no_sense_is_named_with_its_key() {
    let ended = with_file("module_threads = 0\n").try_start().expect_err("no threads");
    assert_says(ended.error(), &["module_threads", "0 is too small"]);
    let setup = Setup::new().env("MILLSTREAM_SEGMENT_BYTES", "many");
    let ended = setup.try_start().expect_err("not a number");
    assert_says(ended.error(), &["segment_bytes", "many"]);
}

#[test]
fn an_unknown_flag_is_an_error_of_use() {
    let ran = run(["serve", "--data-dri", "x"]);
    assert_eq!(ran.code, Some(2));
    assert_says(&ran.stderr, &["--data-dri", "--data-dir"]);
}
