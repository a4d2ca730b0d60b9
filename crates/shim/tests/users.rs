//! A shim of a pod with users of its own: what its namespaces belong to, and what is said where they cannot be made.

mod support;

use shim::config::{IdRange, NamespaceMode, PidMode, PodUsers, ShimConfig};
use shim::protocol::*;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use support::{Pod, within};

fn users() -> PodUsers {
    let range = |outside| vec![IdRange { inside: 0, outside, count: 10_000 }];
    PodUsers { uids: range(300_000), gids: range(400_000) }
}

fn info(pod: &mut Pod) -> InfoResponse {
    pod.client.call(Method::Info, &InfoRequest {}).unwrap()
}

fn namespace(path: &str) -> PathBuf {
    std::fs::read_link(path).unwrap()
}

/// What a process that enters the namespaces of `target` and the user namespace `user` prints for `script`.
fn inside(user: &str, target: u32, script: &str) -> String {
    let enter = std::process::Command::new("nsenter")
        .args([&format!("--user={user}"), "-t", &target.to_string(), "-u", "-i", "-n", "sh", "-c", script])
        .output()
        .unwrap();
    String::from_utf8(enter.stdout).unwrap() + &String::from_utf8_lossy(&enter.stderr)
}

#[test]
fn its_namespaces_belong_to_its_users_while_it_stays_the_hosts() {
    needs_containers!();
    for pid in [PidMode::PerContainer, PidMode::Pod] {
        let mut pod = Pod::with(|config| {
            config.users = Some(users());
            config.namespaces.pid = pid;
            config.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
            config.sysctls.insert("kernel.shmmni".into(), "1234".into());
        });
        let info = info(&mut pod);
        assert_ne!(info.user_namespace, 0);
        let user = format!("/proc/{}/fd/{}", info.pid, info.user_namespace);
        assert!(namespace(&user).to_string_lossy().starts_with("user:["));
        assert_ne!(namespace(&user), namespace("/proc/self/ns/user"));
        assert_eq!(namespace(&format!("/proc/{}/ns/user", info.pid)), namespace("/proc/self/ns/user"));
        // Who is root there may change the network, which the host's nobody may not.
        let script = "cat /proc/self/uid_map | tr -s ' '; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start \
            /proc/sys/kernel/shmmni; busybox ip link set lo up && echo 7 > /proc/sys/kernel/shmmni && echo done";
        assert_eq!(inside(&user, info.pid, script), " 0 300000 10000\ntested\n77\n1234\ndone\n");
        let init = info.pid_namespace_init;
        assert_eq!(init != 0, pid == PidMode::Pod);
        if init != 0 {
            assert_eq!(namespace(&format!("/proc/{init}/ns/user")), namespace(&user));
            let owner = std::fs::metadata(format!("/proc/{init}/task/{init}/comm")).unwrap();
            let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
            assert!(status.contains("Uid:\t300000\t300000\t300000\t300000"), "{status}");
            assert!(
                status.contains("CapPrm:\t0000000000000000") && status.contains("NoNewPrivs:\t1"),
                "{status}"
            );
            assert_eq!(owner.uid(), 0, "nobody there may trace it");
        }
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", info.pid)).unwrap();
        assert_eq!(children.split_whitespace().count(), usize::from(init != 0), "{children}");
        let _: Empty = pod.client.call(Method::Shutdown, &ShutdownRequest {}).unwrap();
        assert!(pod.ended());
        if init != 0 {
            let gone = || !std::path::Path::new(&format!("/proc/{init}")).exists();
            assert!(within(std::time::Duration::from_secs(5), gone), "its init is still there");
        }
    }
}

#[test]
fn what_cannot_be_made_is_told_with_its_step() {
    needs_containers!();
    type Change = fn(&mut ShimConfig);
    let cases: [(&str, ErrorCode, Change); 4] = [
        ("user namespace", ErrorCode::SetupFailed, |config| {
            config.users.as_mut().unwrap().uids.push(IdRange { inside: 5, outside: 1, count: 1 });
        }),
        ("user namespace", ErrorCode::SetupFailed, |config| {
            config.users.as_mut().unwrap().gids = vec![IdRange { inside: 1, outside: 1, count: 1 }];
        }),
        ("sysctls", ErrorCode::InvalidArgument, |config| {
            config.sysctls.insert("net.ipv4.no_such".into(), "1".into());
        }),
        ("sysctls", ErrorCode::InvalidArgument, |config| {
            config.namespaces.ipc = NamespaceMode::Host;
            config.sysctls.insert("kernel.shmmni".into(), "1".into());
        }),
    ];
    for (stage, code, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut config = support::config(folder.path());
        config.users = Some(users());
        change(&mut config);
        let (mut child, socket) = support::launch(&config, &folder.path().join("messages"));
        let mut client = support::client::Client::over(socket);
        let error = client.call::<InfoResponse>(Method::Info, &InfoRequest {}).unwrap_err();
        assert_eq!((error.code, &error.stage[..]), (code, stage), "{error}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}
