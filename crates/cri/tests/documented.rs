//! `docs/cri.md` against the definitions: no call and no field without a row, no row without a call or field.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

/// Names of calls and of fields, `Service/Call` and `Message.field`.
type Names = BTreeSet<String>;

fn defined() -> (Names, BTreeMap<String, Names>) {
    let set =
        FileDescriptorSet::decode(include_bytes!("../src/generated/descriptors.bin").as_slice()).unwrap();
    let file = set.file.into_iter().find(|file| file.package() == "runtime.v1").unwrap();
    let calls = file.service.iter().flat_map(|service| {
        service.method.iter().map(move |call| format!("{}/{}", service.name(), call.name()))
    });
    let is_map =
        |message: &DescriptorProto| message.options.as_ref().is_some_and(|options| options.map_entry());
    let messages = file.message_type.iter().filter(|message| !is_map(message));
    let fields =
        |message: &DescriptorProto| message.field.iter().map(|field| field.name().to_owned()).collect();
    let messages = messages.map(|message| (message.name().to_owned(), fields(message)));
    (calls.collect(), messages.filter(|(_, fields): &(_, Names)| !fields.is_empty()).collect())
}

/// The first cells of a table's rows, below each heading of the second and third level.
fn written(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("### ").or_else(|| line.strip_prefix("## ")) {
            heading = title.to_owned();
        }
        let cell = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |"));
        if let Some((name, meaning)) = cell {
            assert!(meaning.trim().len() > 4, "{heading}, {name}: what does it do?");
            sections.entry(heading.clone()).or_default().push(name.to_owned());
        }
    }
    sections
}

#[test]
fn every_call_and_field_has_a_row() {
    let (calls, messages) = defined();
    let mut sections = written(include_str!("../../../docs/cri.md"));
    let rows: Names = sections.remove("Calls").unwrap().into_iter().collect();
    assert_eq!(
        calls.symmetric_difference(&rows).collect::<Vec<_>>(),
        [""; 0],
        "calls without a row or the reverse"
    );

    let mut missing: Names = messages
        .iter()
        .flat_map(|(message, fields)| fields.iter().map(move |field| format!("{message}.{field}")))
        .collect();
    let mut surplus = Names::new();
    for (heading, rows) in sections {
        let (known, unknown): (Vec<&str>, _) =
            heading.split(", ").partition(|name| messages.contains_key(*name));
        surplus.extend(unknown.into_iter().map(|name: &str| format!("message {name}")));
        for row in rows {
            let of = |message: &&&str| {
                row == "*" && message.starts_with("Windows") || messages[**message].contains(&row)
            };
            let having: Vec<_> = known.iter().filter(of).collect();
            if having.is_empty() {
                surplus.insert(format!("{heading}: {row}"));
            }
            for message in having {
                let all = row == "*";
                missing.retain(|name| match name.split_once('.') {
                    Some((of, field)) => of != *message || !(all || field == row),
                    None => true,
                });
            }
        }
    }
    assert_eq!((missing, surplus), (Names::new(), Names::new()), "fields without a row, and the reverse");
}
