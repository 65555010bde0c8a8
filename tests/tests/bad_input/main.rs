//! Bad input: each gets a clear error with the right code, loses nothing and leaves the agent serving.

mod batches;
mod config;
mod disk_full;
mod enums;
mod many_topics;
mod modules;
mod names;
mod offsets;
mod records;
mod startup;
mod storage;
mod topics;

use tonic::{Code, Status};

/// The code of a refusal, and words that its message must have.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, words: &[&str]) {
    let status = result.expect_err("it was accepted");
    assert_eq!(status.code(), code, "{}", status.message());
    assert_says(status.message(), words);
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}
