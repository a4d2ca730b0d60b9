//! Machines for the tests: network namespaces that stand for a host, a neighbour or a pod.

#![allow(dead_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use network::{Netns, NetworkConfig, Networks, PodNetwork};

/// A "host": a network namespace that the test's code is run in, and folders for one daemon.
pub(crate) struct Host {
    pub(crate) netns: OwnedFd,
    pub(crate) folder: tempfile::TempDir,
}

/// A new network namespace, or `None` (and a line that says so) where the test may not make one.
pub(crate) fn namespace() -> Option<OwnedFd> {
    match sys::namespace::new_network() {
        Ok(netns) => Some(netns),
        Err(error) => {
            println!("SKIPPED: cannot make a network namespace: {error}");
            None
        }
    }
}

impl Host {
    pub(crate) fn new() -> Option<Host> {
        let netns = namespace()?;
        network::set_up_loopback(netns.as_fd()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for inner in ["conf", "bin", "root"] {
            std::fs::create_dir(folder.path().join(inner)).unwrap();
        }
        Some(Host { netns, folder })
    }

    pub(crate) fn path(&self, inner: &str) -> PathBuf {
        self.folder.path().join(inner)
    }

    pub(crate) fn config(&self) -> NetworkConfig {
        NetworkConfig {
            conf_dir: self.path("conf"),
            bin_dirs: vec![self.path("bin")],
            state_dir: self.path("state"),
            root_dir: self.path("root"),
            plugin_deadline: Duration::from_secs(5),
        }
    }

    pub(crate) fn networks(&self) -> Networks {
        Networks::new(self.config()).unwrap()
    }

    /// Writes a configuration list with one built-in plugin.
    pub(crate) fn configure(&self, plugin: serde_json::Value) {
        self.write_list("1.1.0", serde_json::json!([plugin]));
    }

    pub(crate) fn write_list(&self, version: &str, plugins: serde_json::Value) {
        let list = serde_json::json!({"cniVersion": version, "name": "test", "plugins": plugins});
        std::fs::write(self.path("conf/10-test.conflist"), list.to_string()).unwrap();
    }

    /// Another machine on a cable to this host, which has the addresses `here`, and the other one `there`.
    /// `None` (and a line that says so) without the `ip` command, which lays the cable.
    pub(crate) fn neighbour(&self, here: &[&str], there: &[&str]) -> Option<OwnedFd> {
        use std::os::fd::AsRawFd;
        let neighbour = namespace()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), neighbour.as_raw_fd());
        let ip = |arguments: &str| command("ip", &arguments.split(' ').collect::<Vec<_>>());
        let made = self.run(|| ip(&format!("link add up0 type veth peer name up0 netns {path}")));
        if made.as_deref() != Some("") {
            println!("SKIPPED: cannot lay a cable with `ip`: {made:?}");
            return None;
        }
        for (netns, addresses) in [(self.netns.as_fd(), here), (neighbour.as_fd(), there)] {
            inside(netns, || {
                ip("link set up0 up");
                ip("link set lo up");
                for address in addresses {
                    let nodad = if address.contains(':') { " nodad" } else { "" };
                    assert_eq!(ip(&format!("address add {address} dev up0{nodad}")).as_deref(), Some(""));
                }
            });
        }
        Some(neighbour)
    }

    /// Runs `work` as a process of this host would.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.netns.as_fd(), work)
    }
}

/// Runs `work` on a thread in the namespace.
pub(crate) fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    sys::namespace::in_network(netns, || Ok(work())).unwrap()
}

/// A pod's namespace, open under a path that stays valid for the test.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: OwnedFd,
}

impl Pod {
    pub(crate) fn new(id: &str) -> Pod {
        Pod { id: id.into(), netns: sys::namespace::new_network().unwrap() }
    }

    pub(crate) fn netns(&self) -> Netns {
        let fd = self.netns.try_clone().unwrap();
        use std::os::fd::AsRawFd;
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd());
        Netns { path: path.into(), fd }
    }

    pub(crate) fn network(&self) -> PodNetwork {
        let mut pod = PodNetwork::new(&self.id, self.netns());
        pod.name = format!("{}-name", self.id);
        pod.namespace = "default".into();
        pod.uid = format!("{}-uid", self.id);
        pod
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.netns.as_fd(), work)
    }
}

/// The output of a command in the calling thread's namespace, for asserting on what the kernel says independently of our own code.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
