//! The definitions themselves: that v1alpha2 is a part of v1, so that one set of handlers can serve both.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

fn files() -> BTreeMap<String, FileDescriptorProto> {
    let set =
        FileDescriptorSet::decode(include_bytes!("../src/generated/descriptors.bin").as_slice()).unwrap();
    set.file.into_iter().map(|file| (file.package().to_owned(), file)).collect()
}

fn calls(file: &FileDescriptorProto) -> Vec<String> {
    let of = |service: &prost_types::ServiceDescriptorProto| {
        let name = service.name().to_owned();
        service.method.iter().map(move |call| format!("{name}/{}", call.name())).collect::<Vec<_>>()
    };
    file.service.iter().flat_map(of).collect()
}

/// Where the wire form of `old` is not that of `new`.
fn differences(old: &DescriptorProto, new: &DescriptorProto) -> Vec<String> {
    let mut found = Vec::new();
    for field in &old.field {
        let Some(now) = new.field.iter().find(|now| now.number() == field.number()) else {
            found.push(format!("{}.{} is gone", old.name(), field.name()));
            continue;
        };
        // Text is bytes on the wire.
        let same =
            now.r#type() == field.r#type() || (field.r#type(), now.r#type()) == (Type::String, Type::Bytes);
        let kind = now.type_name().replace("runtime.v1.", "runtime.v1alpha2.") == field.type_name();
        if !same || !kind || now.label() != field.label() {
            found.push(format!("{}.{} is another now", old.name(), field.name()));
        }
    }
    for nested in &old.nested_type {
        match new.nested_type.iter().find(|now| now.name() == nested.name()) {
            Some(now) => found.extend(differences(nested, now)),
            None => found.push(format!("{}.{} is gone", old.name(), nested.name())),
        }
    }
    found
}

#[test]
fn v1alpha2_is_a_part_of_v1() {
    let files = files();
    let (old, new) = (&files["runtime.v1alpha2"], &files["runtime.v1"]);
    let mut found = Vec::new();
    for message in &old.message_type {
        match new.message_type.iter().find(|now| now.name() == message.name()) {
            Some(now) => found.extend(differences(message, now)),
            None => found.push(format!("message {} is gone", message.name())),
        }
    }
    assert_eq!(found, [""; 0]);
    assert_eq!((calls(old).len(), calls(new).len()), (29, 43));
    let now = calls(new);
    assert!(calls(old).iter().all(|call| now.contains(call)));
}
