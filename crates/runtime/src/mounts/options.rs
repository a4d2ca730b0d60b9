//! Mount options, as mount(8) and the runtime-spec spell them.

use std::os::fd::{AsFd, OwnedFd};

use sys::mount::{Change, Parameter, Propagation, attribute};

/// What the options of one mount ask for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// `MOUNT_ATTR_*` to set on the mount.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear on the mount.
    pub(crate) clear: u64,
    /// To set on the mount and all below it.
    pub(crate) deep_set: u64,
    /// To clear on the mount and all below it.
    pub(crate) deep_clear: u64,
    /// Propagation, and whether for all below too.
    pub(crate) propagation: Option<(Propagation, bool)>,
    /// A bind mount; whether with all below.
    pub(crate) bind: Option<bool>,
    /// An id-mapped mount; whether with all below.
    pub(crate) id_map: Option<bool>,
    /// A tmpfs starts with a copy of what it covers.
    pub(crate) copy_up: bool,
    /// No mount of its own: the attributes of what is mounted at the destination already are changed.
    pub(crate) remount: bool,
    /// For the file system itself.
    pub(crate) data: Vec<String>,
}

impl Options {
    /// Parses the options of a mount.
    ///
    /// # Errors
    /// An option that holds a NUL byte. Unknown options are the file system's to judge.
    pub(crate) fn parse(given: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        for option in given {
            if option.contains('\0') {
                return Err("an option holds a NUL byte".into());
            }
            options.take(option);
        }
        Ok(options)
    }

    fn take(&mut self, option: &str) {
        use Propagation::{Private, Shared, Slave, Unbindable};
        if let Some((set, clear)) = flag(option) {
            self.set = self.set & !clear | set;
            self.clear |= clear;
            return;
        }
        // "rw" of old mount(8) tables never appears with an r in front but as "rrw".
        if let Some((set, clear)) = option.strip_prefix('r').and_then(flag) {
            self.deep_set = self.deep_set & !clear | set;
            self.deep_clear |= clear;
            return;
        }
        match option {
            "defaults" | "" | "norelatime" | "nostrictatime" | "rnorelatime" | "rnostrictatime" => {}
            // Of mount(2), which told file systems so by flags that fsconfig(2) does not have.
            "silent" | "loud" | "acl" | "noacl" | "iversion" | "noiversion" => {}
            "remount" => self.remount = true,
            // Beside `rbind` it says nothing: CRI-O adds it to every bind.
            "bind" => self.bind = self.bind.or(Some(false)),
            "rbind" => self.bind = Some(true),
            "shared" => self.propagation = Some((Shared, false)),
            "rshared" => self.propagation = Some((Shared, true)),
            "slave" => self.propagation = Some((Slave, false)),
            "rslave" => self.propagation = Some((Slave, true)),
            "private" => self.propagation = Some((Private, false)),
            "rprivate" => self.propagation = Some((Private, true)),
            "unbindable" => self.propagation = Some((Unbindable, false)),
            "runbindable" => self.propagation = Some((Unbindable, true)),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            other => self.data.push(other.into()),
        }
    }

    /// The options for the file system as parameters of fsconfig(2).
    pub(crate) fn parameters(&self) -> Vec<Parameter<'_>> {
        self.data
            .iter()
            .map(|option| match option.split_once('=') {
                Some((key, value)) => Parameter::Value(key, value),
                None => Parameter::Flag(option),
            })
            .collect()
    }

    /// Applies the recursive attributes to the tree at `mount`.
    pub(crate) fn set_recursive(&self, mount: &OwnedFd) -> std::io::Result<()> {
        if self.deep_set | self.deep_clear == 0 {
            return Ok(());
        }
        let change = Change { set: self.deep_set, clear: self.deep_clear, ..Change::default() };
        sys::mount::set_attributes(mount.as_fd(), true, &change)
    }
}

/// The attributes that an option sets and clears.
fn flag(option: &str) -> Option<(u64, u64)> {
    use attribute::{ATIME, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, STRICTATIME};
    Some(match option {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        "noatime" => (NOATIME, ATIME),
        "strictatime" => (STRICTATIME, ATIME),
        // Relative updates are the value zero of the field.
        "relatime" | "atime" => (0, ATIME),
        _ => return None,
    })
}

/// All option names, for the features document.
pub(crate) const NAMES: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_last_word_wins_and_recursive_words_are_told_from_plain_ones() {
        let options = parse(&["rbind", "ro", "rw", "nosuid", "rro", "rslave", "mode=755", "newinstance"]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.set, attribute::NOSUID);
        assert_eq!(options.clear, attribute::RDONLY);
        assert_eq!(options.deep_set, attribute::RDONLY);
        assert_eq!(options.propagation, Some((Propagation::Slave, true)));
        assert_eq!(options.data, ["mode=755", "newinstance"]);
        assert_eq!(parse(&["rbind", "bind"]).bind, parse(&["bind", "rbind"]).bind);
        // "relatime" and "rbind" start with an r and are no recursive forms; "rw" is not a recursive "w".
        let options = parse(&["relatime", "rrelatime"]);
        assert_eq!((options.clear, options.deep_clear), (attribute::ATIME, attribute::ATIME));
    }

    #[test]
    fn every_listed_name_is_understood() {
        // These are the file system's to do, by the same names.
        let of_every_filesystem = ["async", "dirsync", "lazytime", "mand", "nolazytime", "nomand", "sync"];
        for name in NAMES {
            let passed_on = !parse(&[name]).data.is_empty();
            assert_eq!(passed_on, of_every_filesystem.contains(name), "{name}");
        }
        assert!(NAMES.is_sorted());
        assert!(Options::parse(&["a\0b".into()]).is_err());
    }
}
