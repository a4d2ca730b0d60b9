//! User namespaces: making one that only carries id maps, writing the maps, and reading where an id of a process leads.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use crate::process;

/// One line of an id map (user_namespaces(7)): `count` ids from `inside` on are those from `outside` on in the parent namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id as the namespace sees it.
    pub inside: u32,
    /// The first id as the parent namespace sees it.
    pub outside: u32,
    /// How many ids there are.
    pub count: u32,
}

/// Writes the maps of the user namespace that the process `pid` has just made (user_namespaces(7)).
///
/// # Errors
/// The kernel's, with the file and the map: ranges that overlap or are too many, or a namespace that has its maps already.
pub fn write_maps(pid: i32, uids: &[IdRange], gids: &[IdRange]) -> io::Result<()> {
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/{pid}/{file}"), &text)
            .map_err(|error| io::Error::new(error.kind(), format!("{file} {:?}: {error}", text.trim_end())))
    };
    write("uid_map", lines(uids))?;
    if !rustix::process::geteuid().is_root() {
        // Without privilege a group map is allowed only after groups were given up.
        write("setgroups", "deny".into())?;
    }
    write("gid_map", lines(gids))
}

/// A user namespace with these maps, which lives as long as the descriptor or a mount that has its map does. It may be called in a
/// process with threads.
///
/// # Errors
/// As [`write_maps`]; and if the kernel has no user namespaces or no more of them.
pub fn new(uids: &[IdRange], gids: &[IdRange]) -> io::Result<OwnedFd> {
    let child = process::clone_idle(crate::namespace::kind::USER)?;
    let opened = write_maps(child.pid, uids, gids)
        .and_then(|()| Ok(File::open(format!("/proc/{}/ns/user", child.pid))?.into()));
    child.kill_and_reap();
    opened
}

/// Which user of this process's namespace the user `id` of the process `pid` is; none if it is mapped to nobody.
pub fn outside_uid(pid: i32, id: u32) -> io::Result<Option<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    Ok(find(&parse(&text), id))
}

/// Takes user and group 0 of the user namespace this process is in.
///
/// # Errors
/// `EINVAL` if the maps do not hold id 0.
pub fn become_root() -> io::Result<()> {
    use rustix::fs::{Gid, Uid};
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    // A change of ids makes a process dumpable again on some kernels.
    process::set_dumpable(false)
}

fn lines(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

fn parse(text: &str) -> Vec<IdRange> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdRange { inside: next()?, outside: next()?, count: next()? })
    };
    text.lines().filter_map(line).collect()
}

fn find(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside).filter(|offset| *offset < range.count)?;
        range.outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_their_range() {
        let map = parse("         0       1000          3\n         5       9000          1\nnonsense\n");
        assert_eq!(map.len(), 2);
        let found: Vec<_> = (0..7).map(|id| find(&map, id)).collect();
        assert_eq!(found, [Some(1000), Some(1001), Some(1002), None, None, Some(9000), None]);
        assert_eq!(find(&[IdRange { inside: 0, outside: u32::MAX, count: 2 }], 1), None);
        let own = std::process::id().cast_signed();
        assert_eq!(
            outside_uid(own, 0).unwrap(),
            find(&parse(&std::fs::read_to_string("/proc/self/uid_map").unwrap()), 0)
        );
    }

    #[test]
    fn a_namespace_has_its_maps_though_this_process_has_threads() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root to map foreign ids");
            return;
        }
        let range = |outside, count| [IdRange { inside: 0, outside, count }];
        let (uids, gids) = (range(70_000, 10), range(80_000, 20));
        let namespace = new(&uids, &gids).unwrap();
        let kind = rustix::fs::readlinkat(
            rustix::fs::CWD,
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&namespace)),
            Vec::new(),
        );
        assert!(kind.unwrap().to_string_lossy().starts_with("user:["));
        let overlap = [uids[0], uids[0]];
        assert!(new(&overlap, &gids).unwrap_err().to_string().contains("uid_map"));
    }
}
