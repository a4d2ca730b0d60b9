//! What the processes of a container hold open, from /proc.

use std::path::Path;

/// The processes of a container together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    pub count: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Those of them that are sockets.
    pub sockets: u64,
    /// How many files the first process may have open (its soft limit).
    pub open_files_limit: Option<u64>,
}

/// Looks at the processes `pids`; `first` is the container's first. One that has ended meanwhile counts as what was seen of it.
pub(super) fn look(pids: &[i32], first: Option<i32>) -> Processes {
    let mut seen = Processes { count: pids.len() as u64, ..Processes::default() };
    for pid in pids {
        for descriptor in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            seen.descriptors += 1;
            let target = std::fs::read_link(descriptor.path());
            seen.sockets += u64::from(target.is_ok_and(|target| is_socket(&target)));
        }
    }
    let limits = first.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    seen.open_files_limit = limits.as_deref().and_then(open_files_limit);
    seen
}

/// proc_pid_fd(5): a socket's link reads `socket:[inode]`.
fn is_socket(target: &Path) -> bool {
    target.as_os_str().as_encoded_bytes().starts_with(b"socket:[")
}

/// The soft limit in a proc_pid_limits(5); `unlimited` is the kernel's number for it.
fn open_files_limit(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_and_links_are_read_as_the_kernel_writes_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             unlimited            unlimited            processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files_limit(text), Some(1024));
        assert_eq!(open_files_limit("Max open files            unlimited  unlimited  files"), Some(u64::MAX));
        assert_eq!(open_files_limit("Max processes 5 5\n"), None);
        assert!(is_socket(Path::new("socket:[123]")) && !is_socket(Path::new("/tmp/socket:[123]")));
    }

    #[test]
    fn this_process_has_what_it_has() {
        let pid = std::process::id().cast_signed();
        let before = look(&[pid], Some(pid));
        let _sockets = std::os::unix::net::UnixStream::pair().unwrap();
        let now = look(&[pid], Some(pid));
        // Other tests run beside this one.
        assert!(
            now.count == 1 && now.sockets >= 2 && now.descriptors >= now.sockets + 3,
            "{before:?} {now:?}"
        );
        assert!(now.open_files_limit.is_some());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            let _ = open_files_limit(&text);
        }
    }
}
