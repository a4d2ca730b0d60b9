//! AppArmor: the daemon's own default profile, named ones, and none. Where the kernel enforces no AppArmor there is nothing to see.

mod support;

use cri::runtime_v1 as v1;
use support::{Daemon, Setup};
use tonic::Code;
use v1::security_profile::ProfileType;

const FILES: &str = "/sys/kernel/security/apparmor";
const DEFAULT: &str = "pintle-default (enforce)\n";
const LABEL: &str = "cat /proc/self/attr/current";

/// One of these tests unloads the profile that the containers of the others have.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

macro_rules! needs_apparmor {
    () => {
        needs_a_node!();
        if !std::path::Path::new(FILES).join("profiles").exists() {
            println!("SKIPPED: the kernel does not enforce AppArmor, or securityfs is not mounted");
            return;
        }
    };
}

type Asked<'a> = Option<(ProfileType, &'a str)>;

fn context(apparmor: Asked<'_>) -> v1::LinuxContainerSecurityContext {
    let profile = |(kind, name): (ProfileType, &str)| v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: name.into(),
    };
    // Its command is process 1 then.
    let pid = v1::NamespaceMode::Container.into();
    let namespace_options = Some(v1::NamespaceOption { pid, ..Default::default() });
    v1::LinuxContainerSecurityContext {
        apparmor: apparmor.map(profile),
        namespace_options,
        ..Default::default()
    }
}

async fn create(
    daemon: &Daemon,
    pod: (&str, &v1::PodSandboxConfig),
    name: &str,
    context: v1::LinuxContainerSecurityContext,
) -> Result<String, tonic::Status> {
    let mut config = daemon.container(name, "exec sleep 1000");
    config.linux.get_or_insert_default().security_context = Some(context);
    let id = daemon.create(pod.0, pod.1, &config).await?;
    daemon.start_container(&id).await?;
    Ok(id)
}

fn loaded() -> bool {
    std::fs::read_to_string(format!("{FILES}/profiles")).unwrap().contains("pintle-default ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_is_confined_too() {
    needs_apparmor!();
    let _alone = ALONE.lock().await;
    let daemon = Daemon::start().await;
    let sandbox = daemon.pod("default");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let pod = (pod.as_str(), &sandbox);
    let label = async |id: &str| daemon.sh(id, LABEL).await;

    let plain = create(&daemon, pod, "plain", context(None)).await.unwrap();
    assert_eq!(label(&plain).await, DEFAULT);
    assert_eq!(daemon.sh(&plain, "cat /proc/1/attr/current").await, DEFAULT);

    // Whatever capabilities it has: no mounts, and nothing of the host's.
    let mut strong = context(Some((ProfileType::RuntimeDefault, "")));
    strong.capabilities = Some(v1::Capability { add_capabilities: vec!["ALL".into()], ..Default::default() });
    strong.seccomp =
        Some(v1::SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..Default::default() });
    let strong = create(&daemon, pod, "strong", strong).await.unwrap();
    assert_eq!(label(&strong).await, DEFAULT);
    for denied in [
        "mount -t tmpfs none /tmp",
        "mount --bind /tmp /etc",
        "echo x > /proc/sysrq-trigger",
        "cat /proc/kcore",
    ] {
        let done = daemon.exec(&strong, &["sh", "-c", denied], 20).await.unwrap();
        let words = String::from_utf8_lossy(&done.stderr).to_lowercase();
        assert!(done.exit_code != 0 && words.contains("denied"), "{denied}: {} {words}", done.exit_code);
    }
    daemon
        .sh(&strong, "echo x > /tmp/x; mv /tmp/x /root; echo -500 > /proc/self/oom_score_adj || true")
        .await;
    daemon.sh(&strong, "sleep 100 & kill -9 $!; ! wait $!").await;
    // The daemon's own signals still come in.
    daemon.stop_container(&strong, 0).await.unwrap();

    // Without a profile the same is possible.
    let mut free = context(Some((ProfileType::Unconfined, "")));
    free.capabilities =
        Some(v1::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    let free = create(&daemon, pod, "free", free).await.unwrap();
    assert_eq!(label(&free).await, "unconfined\n");
    daemon.sh(&free, "mount -t tmpfs none /tmp").await;

    // With no_new_privs the profile is taken as well.
    let bound = v1::LinuxContainerSecurityContext { no_new_privs: true, ..context(None) };
    let bound = create(&daemon, pod, "bound", bound).await.unwrap();
    assert_eq!(
        daemon.sh(&bound, "cat /proc/1/attr/current; grep NoNewPrivs /proc/1/status").await,
        format!("{DEFAULT}NoNewPrivs:\t1\n")
    );
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_found_or_refused() {
    needs_apparmor!();
    let _alone = ALONE.lock().await;
    let daemon = Daemon::start().await;
    let mut sandbox = daemon.pod("names");
    sandbox.linux.get_or_insert_default().security_context =
        Some(v1::LinuxSandboxSecurityContext { privileged: true, ..Default::default() });
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let pod = (pod.as_str(), &sandbox);
    let named = |name| context(Some((ProfileType::Localhost, name)));

    // With and without the word that kubelets of old put before it, in the new field and in the old one.
    for (at, name) in ["pintle-default", "localhost/pintle-default"].into_iter().enumerate() {
        let id = create(&daemon, pod, &format!("named-{at}"), named(name)).await.unwrap();
        assert_eq!(daemon.sh(&id, LABEL).await, DEFAULT);
    }
    #[allow(deprecated, reason = "kubelets before 1.30 fill it")]
    let old = v1::LinuxContainerSecurityContext {
        apparmor_profile: "localhost/pintle-default".into(),
        ..Default::default()
    };
    let id = create(&daemon, pod, "old", old).await.unwrap();
    assert_eq!(daemon.sh(&id, LABEL).await, DEFAULT);

    let refused = create(&daemon, pod, "missing", named("no-such-profile")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for word in ["missing", "no-such-profile", "apparmor_parser"] {
        assert!(refused.message().contains(word), "{refused}");
    }

    // A privileged container has no profile, unless one is named for it.
    let privileged = |asked| v1::LinuxContainerSecurityContext { privileged: true, ..context(asked) };
    for (at, (asked, expected)) in [
        (None, "unconfined\n"),
        (Some((ProfileType::RuntimeDefault, "")), "unconfined\n"),
        (Some((ProfileType::Localhost, "pintle-default")), DEFAULT),
    ]
    .into_iter()
    .enumerate()
    {
        let id = create(&daemon, pod, &format!("privileged-{at}"), privileged(asked)).await.unwrap();
        assert_eq!(daemon.sh(&id, LABEL).await, expected);
        // Here it can be seen that the profile denies it: elsewhere /sys is read-only already.
        let setting = ["sh", "-c", "cat /sys/kernel/mm/ksm/run > /sys/kernel/mm/ksm/run"];
        let done = daemon.exec(&id, &setting, 20).await.unwrap();
        let denied = String::from_utf8_lossy(&done.stderr).to_lowercase().contains("denied");
        assert_eq!((done.exit_code != 0, denied), (expected == DEFAULT, expected == DEFAULT), "{expected}");
    }

    // Somebody cleans up (Debian's aa-remove-unknown unloads what no file of /etc/apparmor.d names): the next container has it again.
    std::fs::write(format!("{FILES}/.remove"), "pintle-default").unwrap();
    assert!(!loaded());
    let id = create(&daemon, pod, "again", context(None)).await.unwrap();
    assert!(loaded());
    assert_eq!(daemon.sh(&id, LABEL).await, DEFAULT);
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_administrator_names_another_default() {
    needs_apparmor!();
    let _alone = ALONE.lock().await;
    let setup = |profile: &str| Setup {
        config: format!("[runtime]\napparmor_profile = \"{profile}\"\n"),
        ..Setup::default()
    };
    let daemon = Daemon::start_as(setup("unconfined")).await;
    let sandbox = daemon.pod("off");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let asked = context(Some((ProfileType::RuntimeDefault, "")));
    let id = create(&daemon, (&pod, &sandbox), "off", asked).await.unwrap();
    assert_eq!(daemon.sh(&id, LABEL).await, "unconfined\n");
    daemon.empty().await;

    let daemon = Daemon::start_as(setup("not-there-yet")).await;
    let sandbox = daemon.pod("absent");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let refused = create(&daemon, (&pod, &sandbox), "absent", context(None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("not-there-yet"), "{refused}");
    daemon.empty().await;
}
