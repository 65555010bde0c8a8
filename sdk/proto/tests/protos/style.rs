//! Everything in the contract says what it is, and names follow the style that `buf lint` asks for.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

use crate::{PACKAGE, files};

/// Places of a file's elements, as its source information names them: the numbers of the descriptors' fields.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const FIELDS: i32 = 2;
const NESTED_MESSAGES: i32 = 3;
const NESTED_ENUMS: i32 = 4;
const VALUES: i32 = 2;
const METHODS: i32 = 2;

/// The comments of a file by the place of what they are about.
struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Comments {
        let info = file
            .source_code_info
            .as_ref()
            .expect("the descriptors carry their comments");
        let comments = info.location.iter().map(|location| {
            let comment = format!("{}{}", location.leading_comments(), location.trailing_comments());
            (location.path.clone(), comment)
        });
        Comments(comments.collect())
    }

    fn has(&self, place: &[i32]) -> bool {
        self.0.get(place).is_some_and(|comment| !comment.trim().is_empty())
    }
}

/// What lacks a comment. The request and the response of a method need none of their own: the method has one.
fn without_comment(file: &FileDescriptorProto) -> Vec<String> {
    let comments = Comments::of(file);
    let methods = file.service.iter().flat_map(|service| &service.method);
    let envelopes: BTreeSet<&str> = methods
        .flat_map(|method| [method.input_type(), method.output_type()])
        .filter_map(|name| name.rsplit('.').next())
        .collect();
    let mut missing = Vec::new();
    let mut check = |place: &[i32], name: String| {
        if !comments.has(place) {
            missing.push(format!("{}: {name}", file.name()));
        }
    };
    for (at, service) in numbered(&file.service) {
        check(&[SERVICES, at], service.name().to_owned());
        for (method_at, method) in numbered(&service.method) {
            check(
                &[SERVICES, at, METHODS, method_at],
                format!("{}.{}", service.name(), method.name()),
            );
        }
    }
    for (at, message) in numbered(&file.message_type) {
        let is_envelope = envelopes.contains(message.name());
        check_message(&[MESSAGES, at], message, is_envelope, &mut check);
    }
    for (at, found) in numbered(&file.enum_type) {
        check_enum(&[ENUMS, at], found, &mut check);
    }
    missing
}

fn check_message(place: &[i32], message: &DescriptorProto, is_envelope: bool, check: &mut impl FnMut(&[i32], String)) {
    if !is_envelope {
        check(place, message.name().to_owned());
    }
    for (at, field) in numbered(&message.field) {
        check(
            &[place, &[FIELDS, at]].concat(),
            format!("{}.{}", message.name(), field.name()),
        );
    }
    for (at, nested) in numbered(&message.nested_type) {
        let is_map = nested.options.as_ref().is_some_and(|options| options.map_entry());
        if !is_map {
            check_message(&[place, &[NESTED_MESSAGES, at]].concat(), nested, false, check);
        }
    }
    for (at, found) in numbered(&message.enum_type) {
        check_enum(&[place, &[NESTED_ENUMS, at]].concat(), found, check);
    }
}

fn check_enum(place: &[i32], found: &EnumDescriptorProto, check: &mut impl FnMut(&[i32], String)) {
    check(place, found.name().to_owned());
    for (at, value) in numbered(&found.value) {
        check(&[place, &[VALUES, at]].concat(), value.name().to_owned());
    }
}

fn numbered<T>(found: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(found)
}

#[test]
fn everything_has_a_comment() {
    let missing: Vec<_> = files().iter().flat_map(without_comment).collect();
    assert!(missing.is_empty(), "these have no comment:\n  {}", missing.join("\n  "));
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_snake(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(allowed) && !name.contains("__")
}

/// `OnError` as the prefix of its values: `ON_ERROR_`.
fn prefix(enum_name: &str) -> String {
    let mut prefix = String::new();
    for c in enum_name.chars() {
        if c.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    prefix + "_"
}

fn misnamed(message: &DescriptorProto, wrong: &mut Vec<String>) {
    let mut names = message
        .field
        .iter()
        .map(|field| field.name().to_owned())
        .collect::<Vec<_>>();
    // What the compiler makes of an optional field begins with an underscore.
    names.extend(
        message
            .oneof_decl
            .iter()
            .map(|oneof| oneof.name().trim_start_matches('_').to_owned()),
    );
    names.retain(|name| !is_snake(name));
    wrong.extend(
        names
            .into_iter()
            .map(|name| format!("{}.{name} is not in lower_snake_case", message.name())),
    );
    let is_map = message.options.as_ref().is_some_and(|options| options.map_entry());
    if !is_pascal(message.name()) && !is_map {
        wrong.push(format!("{} is not in PascalCase", message.name()));
    }
    message.nested_type.iter().for_each(|nested| misnamed(nested, wrong));
    message.enum_type.iter().for_each(|found| misnamed_values(found, wrong));
}

fn misnamed_values(found: &EnumDescriptorProto, wrong: &mut Vec<String>) {
    let prefix = prefix(found.name());
    for value in &found.value {
        let name = value.name();
        if !name.starts_with(&prefix) || name != name.to_ascii_uppercase() {
            wrong.push(format!("{name} does not begin with {prefix}"));
        }
        if (value.number() == 0) != name.ends_with("_UNSPECIFIED") {
            wrong.push(format!("{name} = {}: 0 is what nobody specified", value.number()));
        }
    }
}

fn misnamed_methods(file: &FileDescriptorProto, wrong: &mut Vec<String>) {
    for service in &file.service {
        if !is_pascal(service.name()) || !service.name().ends_with("Service") {
            wrong.push(format!("{} does not end with Service", service.name()));
        }
        for method in &service.method {
            let name = method.name();
            let expected = (
                format!(".{PACKAGE}.{name}Request"),
                format!(".{PACKAGE}.{name}Response"),
            );
            if (method.input_type(), method.output_type()) != (&expected.0, &expected.1) {
                wrong.push(format!("{name} does not take {name}Request and return {name}Response"));
            }
        }
    }
}

#[test]
fn names_follow_one_style() {
    let mut wrong = Vec::new();
    for file in files() {
        let stem = file
            .name()
            .strip_prefix("millstream/v1/")
            .and_then(|name| name.strip_suffix(".proto"));
        if !stem.is_some_and(is_snake) {
            wrong.push(format!("{} is not millstream/v1/lower_snake_case.proto", file.name()));
        }
        file.message_type
            .iter()
            .for_each(|message| misnamed(message, &mut wrong));
        file.enum_type
            .iter()
            .for_each(|found| misnamed_values(found, &mut wrong));
        misnamed_methods(&file, &mut wrong);
    }
    assert!(
        wrong.is_empty(),
        "buf would not have these names:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn every_proto_file_is_compiled() {
    let compiled: BTreeSet<_> = files().iter().map(|file| file.name().to_owned()).collect();
    let written = std::fs::read_dir(crate::path("millstream/v1")).unwrap().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        format!("millstream/v1/{name}")
    });
    assert_eq!(written.collect::<BTreeSet<_>>(), compiled);
}
