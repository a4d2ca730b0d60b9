//! What the kernel and the policy's files say: selinuxfs, and `lxc_contexts`, in which a policy names the labels of containers.

use rustix::fs::{Mode, OFlags};

use super::{Label, read_short};

const FILES: &str = "/sys/fs/selinux";

/// What container policies have called these since Fedora 26 and Debian 11, where no file says otherwise.
const PROCESS: &str = "system_u:system_r:container_t:s0";
const FILE: &str = "system_u:object_r:container_file_t:s0";
const LAYER: &str = "system_u:object_r:container_ro_file_t:s0";
/// What is not kept apart: "super privileged containers".
pub(super) const TOGETHER: &str = "spc_t";

/// The labels of containers that ask for none. What the kernel's policy does not know is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    pub process: Option<Label>,
    pub file: Option<Label>,
    /// Of what images are unpacked to: the kernel looks through the mount's label to it when a container maps a file.
    pub layer: Option<Label>,
    /// Of processes that are not kept apart.
    pub together: Option<Label>,
}

impl Defaults {
    pub(super) fn read(knows: impl Fn(&str) -> bool) -> Defaults {
        let config = read_short("/etc/selinux/config").unwrap_or_default();
        let policy = setting(&config, "SELINUXTYPE").unwrap_or("targeted");
        let contexts =
            read_short(&format!("/etc/selinux/{policy}/contexts/lxc_contexts")).unwrap_or_default();
        Defaults::of(&contexts, own_level().as_deref(), knows)
    }

    /// From the file's text and the level of this process.
    fn of(contexts: &str, own_level: Option<&str>, knows: impl Fn(&str) -> bool) -> Defaults {
        let label = |key: &str, usual: &str| -> Option<Label> {
            let text = setting(contexts, key).unwrap_or(usual);
            let label: Label = text.parse().ok()?;
            let without = Label { level: String::new(), ..label.clone() };
            [label, without].into_iter().find(|label| knows(&label.to_string()))
        };
        let process = label("process", PROCESS);
        let together = process.as_ref().and_then(|process| {
            let of = |level: &str| Label { kind: TOGETHER.into(), level: level.into(), ..process.clone() };
            let levels = own_level.into_iter().chain([process.level.as_str()]);
            levels.map(of).find(|label| knows(&label.to_string()))
        });
        Defaults { process, file: label("file", FILE), layer: label("ro_file", LAYER), together }
    }
}

/// `KEY=VALUE` and `key = "value"`, one in a line.
fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut pairs = lines.filter_map(|line| line.split_once('='));
    let value = pairs.find(|(name, _)| name.trim() == key)?.1.trim().trim_matches('"');
    // The value becomes part of a path.
    (!value.is_empty() && !value.contains('/')).then_some(value)
}

/// The level of this process: what is not kept apart has it too.
fn own_level() -> Option<String> {
    let text = read_short("/proc/self/attr/current").ok()?;
    let label: Label = text.trim_end_matches(['\0', '\n']).parse().ok()?;
    Some(label.level)
}

pub(super) fn enabled() -> bool {
    std::path::Path::new(FILES).join("enforce").exists()
}

pub(super) fn has_levels() -> bool {
    read_short("/sys/fs/selinux/mls").is_ok_and(|text| text.starts_with('1'))
}

/// Asks the kernel whether the label is one of its policy.
pub(super) fn knows(label: &str) -> bool {
    let ask = || {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open("/sys/fs/selinux/context", flags, Mode::empty())?;
        rustix::io::write(file, label.as_bytes())
    };
    ask().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policys_file_is_read() {
        let text = "process = \"system_u:system_r:mine_t:s0\"\nfile= \"system_u:object_r:mine_file_t:s0\"\n# x = \"y\"\n";
        let defaults = Defaults::of(text, Some("s0-s0:c0.c1023"), |_| true);
        assert_eq!(defaults.process.unwrap().to_string(), "system_u:system_r:mine_t:s0");
        assert_eq!(defaults.file.unwrap().kind, "mine_file_t");
        assert_eq!(defaults.together.unwrap().to_string(), "system_u:system_r:spc_t:s0-s0:c0.c1023");
        assert_eq!(setting("SELINUXTYPE=default\n", "SELINUXTYPE"), Some("default"));
        assert_eq!(setting("#SELINUXTYPE=x\nSELINUXTYPE=../x\n", "SELINUXTYPE"), None);
    }

    #[test]
    fn without_a_file_the_usual_names_are_tried() {
        let defaults = Defaults::of("", Some("s0"), |label| !label.contains("spc_t"));
        assert_eq!(defaults.process.unwrap().to_string(), PROCESS);
        assert_eq!(defaults.together, None);
        let without_levels = Defaults::of("", None, |label| label.split(':').count() == 3);
        assert_eq!(without_levels.file.unwrap().to_string(), "system_u:object_r:container_file_t");
        let nothing = Defaults::of("", None, |_| false);
        assert_eq!(nothing, Defaults { process: None, file: None, layer: None, together: None });
    }
}
