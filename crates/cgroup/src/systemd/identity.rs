//! Whose systemd this process may ask for units: the machine's, or an ordinary user's own.

use std::path::{Path, PathBuf};

use super::names::Manager;

/// The one for containers of this process. An ordinary user asks their own, also as root of a user namespace, where rootless engines are;
/// root of a system container asks that container's.
pub fn manager() -> Manager {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    match outside(&map, rustix::process::geteuid().as_raw()) {
        Some(uid) if uid != 0 && sockets(uid).iter().any(|socket| socket.exists()) => Manager::User(uid),
        _ => Manager::System,
    }
}

/// Where the user's systemd is found: through the bus, and on the socket of systemd's own tools.
pub(super) fn sockets(uid: u32) -> [PathBuf; 2] {
    let folder = Path::new("/run/user").join(uid.to_string());
    [folder.join("bus"), folder.join("systemd/private")]
}

/// What `uid` is outside of the user namespace with this map (user_namespaces(7)).
fn outside(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let within = uid.checked_sub(first).filter(|within| *within < count)?;
        outside.checked_add(within)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_outside() {
        let host = "         0          0 4294967295\n";
        assert_eq!((outside(host, 0), outside(host, 1000)), (Some(0), Some(1000)));
        let rootless = "0 1000 1\n1 100000 65536\n";
        assert_eq!((outside(rootless, 0), outside(rootless, 2)), (Some(1000), Some(100_001)));
        assert_eq!((outside(rootless, 70_000), outside("x", 0), outside("", 0)), (None, None, None));
    }
}
