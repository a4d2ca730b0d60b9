//! Which of the kernel's modules the machine has, and the first root, which only finds the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};

use super::cache::Cached;
use super::cpio::Archive;

/// To reach the disk, and to hold projects to their quotas on it.
const FIRST: &[&str] = &["virtio_pci", "virtio_blk", "quota_v2"];

/// What Pintle's parts ask for.
const LATER: &[&str] = &[
    "overlay",
    "bridge",
    "br_netfilter",
    "veth",
    "virtio_net",
    "tun",
    "macvlan",
    "dummy",
    "ifb",
    "erofs",
    "loop",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "nft_redir",
    "nft_reject_inet",
    "nft_fib_inet",
    "nft_limit",
    "nft_compat",
    "nf_conntrack_netlink",
    "sch_tbf",
    "sch_ingress",
    "sch_htb",
    "sch_fq_codel",
    "cls_u32",
    "cls_matchall",
    "act_mirred",
    "act_police",
    // For CRIU.
    "unix_diag",
    "tcp_diag",
    "udp_diag",
    "netlink_diag",
    "af_packet_diag",
];

/// `modules.dep`: for each module's file, the files that it needs.
pub(super) struct Modules(BTreeMap<String, Vec<String>>);

impl Modules {
    /// Reads what depmod(8) wrote.
    pub(super) fn read(cached: &Cached) -> Result<Modules> {
        let file = cached.modules.join("modules.dep");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(Modules::parse(&text))
    }

    fn parse(text: &str) -> Modules {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let words = |rest: &str| rest.split_whitespace().map(str::to_owned).collect();
        Modules(lines.map(|(file, rest)| (file.to_owned(), words(rest))).collect())
    }

    /// The files of these modules, each after all that it needs; what is built in or unknown has none.
    fn in_order(&self, names: &[&str]) -> Vec<String> {
        let mut files = Vec::new();
        for name in names {
            let wanted = self.0.iter().find(|(file, _)| stem(file) == *name);
            let Some((file, needs)) = wanted else { continue };
            // depmod lists them with the nearest first.
            for file in needs.iter().rev().chain([file]) {
                if !files.contains(file) {
                    files.push(file.clone());
                }
            }
        }
        files
    }

    /// All files of the machine's modules.
    pub(super) fn all(&self) -> Vec<String> {
        self.in_order(&[FIRST, LATER].concat())
    }

    /// Those that are loaded at the start: what is built in has no file and needs no loading.
    pub(super) fn names(&self) -> Vec<String> {
        self.all().iter().map(|file| stem(file)).collect()
    }

    /// `modules.dep` with only what the machine has.
    pub(super) fn dep(&self) -> String {
        let line = |file: &String| format!("{file}: {}\n", self.0[file].join(" "));
        self.all().iter().map(line).collect()
    }
}

/// `modules.alias` with only what the machine has: by it the kernel's requests become names.
pub(super) fn alias(cached: &Cached, files: &[String]) -> Result<String> {
    let names: BTreeSet<String> = files.iter().map(|file| stem(file)).collect();
    let text = fs::read_to_string(cached.modules.join("modules.alias"))?;
    let ours = |line: &&str| line.rsplit(' ').next().is_some_and(|name| names.contains(name));
    Ok(text.lines().filter(ours).map(|line| format!("{line}\n")).collect())
}

/// The first root: busybox, the modules that reach the disk, and the script that goes on from there.
pub(super) fn initramfs(cached: &Cached) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "root", "modules"] {
        archive.folder(folder);
    }
    archive.file("bin/busybox", &fs::read(&cached.busybox)?);
    for (at, file) in Modules::read(cached)?.in_order(FIRST).iter().enumerate() {
        archive.file(&format!("modules/{at:02}.ko"), &fs::read(cached.modules.join(file))?);
    }
    archive.file("init", include_bytes!("first.sh"));
    Ok(archive.finish())
}

/// The module's name: in it, `-` is `_`.
fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let modules = Modules::parse("k/a.ko: k/b-c.ko k/d.ko\nk/b-c.ko: k/d.ko\nk/d.ko:\nk/e.ko:\n");
        assert_eq!(modules.in_order(&["a"]), ["k/d.ko", "k/b-c.ko", "k/a.ko"]);
        assert_eq!(modules.in_order(&["e", "b_c"]), ["k/e.ko", "k/d.ko", "k/b-c.ko"]);
        assert!(modules.in_order(&["ext4"]).is_empty());
    }
}
