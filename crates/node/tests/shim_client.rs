//! The daemon's client against real shims. This program is its own shim: started with the word `shim` it is one.

use node::shim_client::{ExecIo, ExecStreams, ShimBinary, ShimClient, ShimError, SpawnError};
use shim::config::{CONFIG_VERSION, LogLevel, NamespaceMode, PidMode, PodNamespaces, ShimConfig};
use shim::protocol::{CreateRequest, ErrorCode, Method};
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("shim") {
        return shim::main();
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: not root");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let binary = ShimBinary::of_self().unwrap();
    runtime.block_on(async {
        calls_are_answered_on_one_connection_and_over_new_ones(&binary).await;
        a_pod_that_cannot_be_set_up_is_told_with_its_stage(&binary).await;
        a_shim_that_is_gone_is_told_from_one_that_refuses(&binary).await;
    });
    println!("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}

fn config(pod_dir: &Path) -> ShimConfig {
    ShimConfig {
        version: CONFIG_VERSION,
        pod_id: "p1".into(),
        pod_dir: pod_dir.into(),
        hostname: "p1".into(),
        domainname: None,
        namespaces: PodNamespaces {
            net: NamespaceMode::New,
            ipc: NamespaceMode::New,
            uts: NamespaceMode::New,
            pid: PidMode::PerContainer,
        },
        users: None,
        sysctls: Default::default(),
        oom_score_adj: Some(-999),
        selinux: None,
        log_level: LogLevel::Info,
        cgroup_mounts: String::new(),
        foreign: None,
    }
}

async fn spawn(binary: &ShimBinary, folder: &Path) -> (ShimClient, tokio::process::Child) {
    let messages = File::create(folder.join("messages")).unwrap();
    ShimClient::spawn(binary, &config(folder), messages).await.unwrap()
}

async fn calls_are_answered_on_one_connection_and_over_new_ones(binary: &ShimBinary) {
    let folder = tempfile::tempdir().unwrap();
    let (client, mut child) = spawn(binary, folder.path()).await;
    let info = client.info().await.unwrap();
    assert_eq!((Some(info.pid), &info.pod_id[..]), (child.id(), "p1"));
    // Many at once, from many tasks, with descriptors among them.
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                if number % 3 == 0 {
                    let null = File::open("/dev/null").unwrap();
                    let streams = ExecStreams { stdin: Some(null.into()), ..ExecStreams::default() };
                    let refused = client.exec("absent", "e", b"{}".to_vec(), ExecIo::Streams(streams)).await;
                    assert!(matches!(refused, Err(ShimError::Refused(e)) if e.code == ErrorCode::NotFound));
                } else {
                    client.info().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // A client that came later, and a create with a root by descriptor which the runtime refuses for want of a bundle.
    let other = ShimClient::connect(folder.path()).unwrap();
    let request = CreateRequest { id: "a".into(), bundle: "/absent".into(), ..CreateRequest::default() };
    let root = File::open("/").unwrap();
    let refused = other.create(request, Some(root.into()), Vec::new()).await;
    assert!(matches!(refused, Err(ShimError::Refused(error)) if error.code == ErrorCode::CreateFailed));
    let long = other.exec("a", "e", vec![0; 5 << 20], ExecIo::Streams(ExecStreams::default())).await;
    assert!(matches!(long, Err(ShimError::Refused(error)) if error.code == ErrorCode::InvalidArgument));
    // A caller that gives up leaves the connection as it was.
    let soon = client.within(Duration::ZERO, Method::Info, client.info()).await;
    assert!(matches!(soon, Err(ShimError::TimedOut { .. }) | Ok(_)));
    client.info().await.unwrap();
    other.shutdown().await.unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(!shim::config::socket_path(folder.path()).exists());
}

async fn a_pod_that_cannot_be_set_up_is_told_with_its_stage(binary: &ShimBinary) {
    let folder = tempfile::tempdir().unwrap();
    let messages = File::create(folder.path().join("messages")).unwrap();
    let config = ShimConfig { hostname: "x".repeat(65), ..config(folder.path()) };
    match ShimClient::spawn(binary, &config, messages).await {
        Err(SpawnError::NotReady { cause: ShimError::Refused(error), .. }) => {
            assert_eq!((error.code, &error.stage[..]), (ErrorCode::SetupFailed, "host name"));
        }
        other => panic!("{other:?}"),
    }
}

async fn a_shim_that_is_gone_is_told_from_one_that_refuses(binary: &ShimBinary) {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(ShimClient::connect(folder.path()), Err(ShimError::Unreachable { .. })));
    let (client, mut child) = spawn(binary, folder.path()).await;
    let refused = client.wait("absent").await;
    assert!(matches!(refused, Err(ShimError::Refused(error)) if error.code == ErrorCode::NotFound));
    // Killed in the middle of a call that it has not answered: it was stopped before.
    let pid = child.id().unwrap();
    let stop = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(stop, rustix::process::Signal::STOP).unwrap();
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.start("a").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    child.kill().await.unwrap();
    assert!(matches!(hanging.await.unwrap(), Err(ShimError::Disconnected { method: "Start", .. })));
    assert!(matches!(client.info().await, Err(ShimError::Unreachable { .. })));
    // Another shim for the same pod displaces what the dead one left; the old client finds it.
    let (_, mut child) = spawn(binary, folder.path()).await;
    assert_eq!(Some(client.info().await.unwrap().pid), child.id());
    client.shutdown().await.unwrap();
    child.wait().await.unwrap();
}
