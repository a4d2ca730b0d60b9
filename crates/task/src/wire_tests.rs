//! The wire's bytes, as protobuf's rules give them for the numbers and types of containerd's definitions.

use super::*;
use proptest::prelude::*;
use prost::Message;

#[test]
fn bytes_are_those_of_the_definitions() {
    // Field 1 of type string, field 10 a message whose fields 1 and 2 are string and bytes.
    let create = CreateTaskRequest {
        id: "a".into(),
        options: Some(pack(&options::Options { systemd_cgroup: true, ..Default::default() })),
        ..Default::default()
    };
    let name = "containerd.runc.v1.Options";
    let mut expected = vec![0x0a, 1, b'a', 0x52, 2 + name.len() as u8 + 4, 0x0a, name.len() as u8];
    expected.extend_from_slice(name.as_bytes());
    expected.extend_from_slice(&[0x12, 2, 0x48, 1]);
    assert_eq!(create.encode_to_vec(), expected);

    let result = bootstrap::BootstrapResult {
        version: 3,
        address: "u".into(),
        protocol: "ttrpc".into(),
        ..Default::default()
    };
    assert_eq!(result.encode_to_vec(), b"\x08\x03\x12\x01u\x1a\x05ttrpc");

    let exit = events::TaskExit {
        container_id: "c".into(),
        id: "e".into(),
        pid: 300,
        exit_status: 137,
        exited_at: Some(Timestamp { seconds: 1, nanos: 2 }),
    };
    assert_eq!(exit.encode_to_vec(), b"\x0a\x01c\x12\x01e\x18\xac\x02\x20\x89\x01\x2a\x04\x08\x01\x10\x02");

    let delete = DeleteResponse { pid: 1, exit_status: 2, exited_at: None };
    assert_eq!(delete.encode_to_vec(), b"\x08\x01\x10\x02");
}

#[test]
fn a_message_is_known_by_its_name_with_and_without_a_host() {
    let mut any = pack(&events::TaskOom { container_id: "c".into() });
    assert_eq!(any.type_url, "containerd.events.TaskOOM");
    assert_eq!(unpack::<events::TaskOom>(&any).unwrap().unwrap().container_id, "c");
    any.type_url = format!("type.googleapis.com/{}", any.type_url);
    assert!(unpack::<events::TaskOom>(&any).unwrap().is_some());
    assert!(unpack::<options::Options>(&any).unwrap().is_none());
    any.value = vec![0xff];
    assert!(unpack::<events::TaskOom>(&any).is_err());
}

#[test]
fn keys_of_memory_stat_have_their_fields() {
    let mut v1 = metrics_v1::MemoryStat::default();
    for (key, value) in [("total_pgmajfault", 1), ("pgpgin", 2), ("hierarchical_memsw_limit", 3), ("x", 4)] {
        v1.set(key, value);
    }
    assert_eq!((v1.total_pg_maj_fault, v1.pg_pg_in, v1.hierarchical_swap_limit), (1, 2, 3));
    let mut v2 = metrics_v2::MemoryStat::default();
    for (key, value) in [("workingset_refault_anon", 1), ("workingset_refault_file", 2), ("anon_thp", 3)] {
        v2.set(key, value);
    }
    assert_eq!((v2.workingset_refault, v2.anon_thp), (3, 3));
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = CreateTaskRequest::decode(&bytes[..]);
        let _ = bootstrap::BootstrapParams::decode(&bytes[..]);
        let _ = metrics_v1::Metrics::decode(&bytes[..]);
        let _ = metrics_v2::Metrics::decode(&bytes[..]);
        let _ = sandbox::CreateSandboxRequest::decode(&bytes[..]);
        let _ = events::ForwardRequest::decode(&bytes[..]);
    }
}
