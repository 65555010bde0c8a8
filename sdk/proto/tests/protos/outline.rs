//! The contract as lines of text: one for everything that a client can come to depend on, in order.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// Everything of these files. Comments are no part of it, nor is the order in which things are declared.
pub fn outline(files: &[FileDescriptorProto]) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files {
        let package = file.package();
        file.message_type
            .iter()
            .for_each(|found| message(package, found, &mut lines));
        file.enum_type
            .iter()
            .for_each(|found| values(package, found, &mut lines));
        file.service
            .iter()
            .for_each(|found| methods(package, found, &mut lines));
    }
    lines.sort();
    lines
}

fn message(parent: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{parent}.{}", message.name());
    lines.push(format!("message {name}"));
    for found in &message.field {
        lines.push(field(&name, message, found));
    }
    message
        .nested_type
        .iter()
        .for_each(|nested| self::message(&name, nested, lines));
    message.enum_type.iter().for_each(|found| values(&name, found, lines));
}

fn field(parent: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        plain => plain.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    // An optional field is a oneof of its own to the compiler.
    let presence = match (field.label(), field.proto3_optional(), field.oneof_index) {
        (Label::Repeated, ..) => "repeated ".to_owned(),
        (_, true, _) => "optional ".to_owned(),
        (_, _, Some(index)) => format!("oneof {} ", message.oneof_decl[index as usize].name()),
        _ => String::new(),
    };
    let (name, number) = (field.name(), field.number());
    format!("field {parent}.{name} = {number} {presence}{kind}")
}

fn values(parent: &str, found: &EnumDescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{parent}.{}", found.name());
    lines.push(format!("enum {name}"));
    for value in &found.value {
        lines.push(format!("value {name}.{} = {}", value.name(), value.number()));
    }
}

fn methods(package: &str, service: &ServiceDescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{package}.{}", service.name());
    lines.push(format!("service {name}"));
    for method in &service.method {
        let side = |type_name: &str, streams: bool| {
            let stream = if streams { "stream " } else { "" };
            format!("{stream}{}", type_name.trim_start_matches('.'))
        };
        let request = side(method.input_type(), method.client_streaming());
        let response = side(method.output_type(), method.server_streaming());
        lines.push(format!(
            "method {name}.{}({request}) returns ({response})",
            method.name()
        ));
    }
}
