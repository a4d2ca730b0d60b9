//! The allocation of addresses against a model of it.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plugin::state::owner;

fn config(subnets: &[&str], ips: &[&str]) -> Config {
    let value =
        json!({"cniVersion": "1.0.0", "name": "n", "subnets": subnets, "runtimeConfig": {"ips": ips}});
    Config::parse(&value).unwrap()
}

fn add(folder: &Path, config: &Config, id: &str) -> Result<Vec<String>, CniError> {
    let mut state = State::lock(folder, &config.name)?;
    let of = owner(id, "eth0");
    let attachment = state.attachment(&of)?.unwrap_or_else(|| Attachment::new(id, "eth0", "veth".into()));
    let attachment = allocate(&mut state, config, attachment)?;
    Ok(attachment.addresses.iter().map(|net| net.addr().to_string()).collect())
}

fn delete(folder: &Path, id: &str) {
    State::lock(folder, "n").unwrap().remove(&owner(id, "eth0")).unwrap();
}

#[test]
fn addresses_go_round_and_are_kept_by_who_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["10.0.0.0/29"], &[]);
    let ip = |id: &str| add(folder.path(), &config, id).map(|ips| ips[0].clone());
    assert_eq!(ip("a").unwrap(), "10.0.0.2");
    assert_eq!(ip("b").unwrap(), "10.0.0.3");
    assert_eq!(ip("a").unwrap(), "10.0.0.2");
    delete(folder.path(), "a");
    // The address that was let go last is the last to be given again.
    assert_eq!(ip("c").unwrap(), "10.0.0.4");
    for (id, expected) in [("d", "10.0.0.5"), ("e", "10.0.0.6"), ("f", "10.0.0.2")] {
        assert_eq!(ip(id).unwrap(), expected);
    }
    let full = ip("g").unwrap_err();
    assert_eq!(full.code, code::NO_ADDRESS_LEFT);
    assert!(full.to_string().contains("10.0.0.0/29"), "{full}");
}

#[test]
fn a_requested_address_is_given_or_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |id: &str, ip: &str| add(folder.path(), &config(&["10.0.0.0/29"], &[ip]), id);
    assert_eq!(ask("a", "10.0.0.5/29").unwrap(), ["10.0.0.5"]);
    assert_eq!(ask("a", "10.0.0.5").unwrap(), ["10.0.0.5"]);
    for (ip, expected) in [
        ("10.0.0.5", "a@eth0"),
        ("10.0.0.1", "reserved"),
        ("10.0.0.7", "reserved"),
        ("10.0.1.2", "no subnet"),
    ] {
        let error = ask("b", ip).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_full_subnet_of_many_addresses_still_finds_the_gap() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["10.0.0.0/23"], &[]);
    for id in 0..509 {
        add(folder.path(), &config, &format!("p{id}")).unwrap();
    }
    assert!(add(folder.path(), &config, "more").is_err());
    delete(folder.path(), "p300");
    assert_eq!(add(folder.path(), &config, "more").unwrap(), ["10.0.1.46"]);
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Delete(u8),
    /// The process died after it wrote down what it would take.
    LoseLinks(u8),
    /// The file of an attachment was damaged.
    Damage(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0u8..12;
    prop_oneof![
        6 => id.clone().prop_map(Step::Add),
        4 => id.clone().prop_map(Step::Delete),
        1 => id.clone().prop_map(Step::LoseLinks),
        1 => id.prop_map(Step::Damage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_given_twice_or_lost(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        // Five and six addresses for pods.
        let config = config(&["10.0.0.0/29", "fd00::/125"], &[]);
        let mut model: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        let network = folder.path().join("networks/n");
        for step in steps {
            match step {
                Step::Add(id) => match add(folder.path(), &config, &id.to_string()) {
                    Ok(ips) => {
                        prop_assert_eq!(ips.len(), 2);
                        if let Some(before) = model.get(&id) {
                            prop_assert_eq!(before, &ips);
                        }
                        for ip in &ips {
                            prop_assert!(!["10.0.0.0", "10.0.0.1", "10.0.0.7", "fd00::", "fd00::1"].contains(&ip.as_str()));
                            prop_assert!(model.iter().all(|(other, taken)| *other == id || !taken.contains(ip)));
                        }
                        model.insert(id, ips);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.code, code::NO_ADDRESS_LEFT);
                        prop_assert!(model.len() >= 5 && !model.contains_key(&id));
                    }
                },
                Step::Delete(id) => {
                    delete(folder.path(), &id.to_string());
                    model.remove(&id);
                }
                Step::LoseLinks(id) => {
                    for ip in model.remove(&id).unwrap_or_default() {
                        std::fs::remove_file(network.join("addresses").join(ip)).unwrap();
                    }
                }
                Step::Damage(id) => {
                    if model.remove(&id).is_some() {
                        std::fs::write(network.join("attachments").join(owner(&id.to_string(), "eth0")), "{").unwrap();
                        prop_assert!(add(folder.path(), &config, &id.to_string()).is_err());
                        delete(folder.path(), &id.to_string());
                    }
                }
            }
        }
        for id in 0..12u8 {
            delete(folder.path(), &id.to_string());
        }
        for inner in ["addresses", "attachments"] {
            let left = std::fs::read_dir(network.join(inner)).map_or(0, |entries| entries.count());
            prop_assert_eq!(left, 0, "{} left", inner);
        }
    }
}
