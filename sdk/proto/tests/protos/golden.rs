//! What was once in the contract stays as it was.

use std::{collections::BTreeSet, env, fs};

use prost_types::{FileDescriptorProto, field_descriptor_proto::Type};

use crate::{files, outline::outline, path};

const GOLDEN: &str = "tests/golden/contract.txt";
const RENEW: &str = "MILLSTREAM_RENEW_GOLDEN";
const HOW: &str = "\
    Add, and never change: new messages, methods and enum values, and new fields under new numbers, absent or 0 of which must \
    mean what was so before. What is not used any more stays, and its comment says so. See sdk/proto/README.md.";

/// What a former client would miss, and what is new.
fn compare(golden: &str, now: &[String]) -> (Vec<String>, Vec<String>) {
    let golden: BTreeSet<&str> = golden.lines().filter(|line| !line.is_empty()).collect();
    let now: BTreeSet<&str> = now.iter().map(String::as_str).collect();
    let lines = |lines: BTreeSet<&str>| lines.into_iter().map(str::to_owned).collect();
    (lines(&golden - &now), lines(&now - &golden))
}

#[test]
fn nothing_that_a_client_depends_on_was_removed_renumbered_or_retyped() {
    let (file, now) = (path(GOLDEN), outline(&files()));
    let golden = fs::read_to_string(&file).unwrap_or_default();
    let (broken, added) = compare(&golden, &now);
    assert!(
        broken.is_empty(),
        "these lines of the contract are gone, which breaks every client that depends on them:\n  {}\n{HOW}",
        broken.join("\n  ")
    );
    if env::var_os(RENEW).is_some() {
        fs::create_dir_all(file.parent().expect("it is in a folder")).unwrap();
        fs::write(&file, now.join("\n") + "\n").unwrap();
        return;
    }
    assert!(
        added.is_empty(),
        "these lines are new in the contract, and are kept from now on once the golden file has them: run\n  \
         {RENEW}=1 cargo test --workspace --test protos\n  {}",
        added.join("\n  ")
    );
}

fn broken_by(change: impl FnOnce(&mut Vec<FileDescriptorProto>)) -> (usize, usize) {
    let mut files = files();
    let golden = outline(&files).join("\n");
    change(&mut files);
    let (broken, added) = compare(&golden, &outline(&files));
    (broken.len(), added.len())
}

fn topics(files: &mut [FileDescriptorProto]) -> &mut FileDescriptorProto {
    let topics = files.iter_mut().find(|file| file.name().ends_with("/topic.proto"));
    topics.expect("there are topics")
}

#[test]
fn a_field_that_is_removed_renumbered_or_retyped_is_noticed() {
    assert_eq!(
        broken_by(|files| drop(topics(files).message_type[0].field.remove(0))),
        (1, 0)
    );
    let renumbered = broken_by(|files| topics(files).message_type[0].field[0].number = Some(1_000));
    assert_eq!(renumbered, (1, 1));
    let retyped = broken_by(|files| topics(files).message_type[0].field[0].set_type(Type::Sint64));
    assert_eq!(retyped, (1, 1));
    let renamed = broken_by(|files| topics(files).message_type[0].field[0].name = Some("other".to_owned()));
    assert_eq!(renamed, (1, 1), "JSON and text go by names");
}

#[test]
fn a_method_and_an_enum_value_that_are_removed_are_noticed_and_what_is_added_breaks_nothing() {
    assert_eq!(
        broken_by(|files| drop(topics(files).service[0].method.remove(0))),
        (1, 0)
    );
    assert_eq!(
        broken_by(|files| drop(topics(files).enum_type[0].value.remove(1))),
        (1, 0)
    );
    let streaming = broken_by(|files| topics(files).service[0].method[0].client_streaming = Some(true));
    assert_eq!(streaming, (1, 1));
    let added = broken_by(|files| {
        let topics = topics(files);
        let mut field = topics.message_type[0].field[0].clone();
        (field.name, field.number) = (Some("another".to_owned()), Some(1_000));
        topics.message_type[0].field.push(field);
    });
    assert_eq!(added, (0, 1));
}
