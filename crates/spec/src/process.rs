//! The first process of a container: its command, environment, working directory and user.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::request::{ContainerRequest, IdMapping, NamespaceMode};
use oci_spec::runtime::{LinuxCapabilities, Process, User};

use crate::error::SpecError;
use crate::input::{ImageFacts, SpecInput};
use crate::path::clean_absolute;
use crate::{apparmor, capabilities, resources};

/// Where programs are looked for if nobody says: the superuser's path of every distribution.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const UMASK: u32 = 0o022;

/// The process of the spec, without what seccomp and namespaces add elsewhere.
pub(crate) fn of_container(input: &SpecInput<'_>) -> Result<(Process, LinuxCapabilities), SpecError> {
    let container = input.container;
    let capabilities = capabilities::of_container(&container.security, &input.host.capabilities)?;
    let oom_score_adj = resources::oom_score_adj(&container.resources, input.host.oom_score_adj_floor)?;
    are_mapped(input)?;
    let mut user = User::default();
    user.set_uid(input.user.uid).set_gid(input.user.gid).set_umask(Some(UMASK));
    user.set_additional_gids(Some(input.user.additional_gids.clone()));
    let mut process = Process::default();
    process
        .set_terminal(Some(container.tty))
        .set_user(user)
        .set_args(Some(command(&container.command, &container.args, input.image)?))
        .set_env(Some(environment(input)?))
        .set_cwd(working_dir(&container.working_dir, &input.image.working_dir)?)
        .set_capabilities(Some(capabilities.clone()))
        .set_rlimits(None)
        .set_no_new_privileges(Some(container.security.no_new_privileges))
        .set_apparmor_profile(apparmor::profile(&container.security, input.host.apparmor.as_ref())?)
        .set_selinux_label(input.selinux.process.clone())
        .set_oom_score_adj(Some(oom_score_adj));
    Ok((process, capabilities))
}

/// In a pod with users of its own, the container's must be among them.
fn are_mapped(input: &SpecInput<'_>) -> Result<(), SpecError> {
    let Some(users) = &input.pod.namespaces.user else { return Ok(()) };
    let count = |mappings: &[IdMapping]| mappings.iter().map(|mapping| mapping.length).sum();
    let (uid, gid) = (input.user.uid, input.user.gid);
    if users.host_uid(uid).is_none() {
        return Err(SpecError::UnmappedId { what: "user", id: uid, count: count(&users.uids) });
    }
    let mut gids = std::iter::once(gid).chain(input.user.additional_gids.iter().copied());
    match gids.find(|gid| users.host_gid(*gid).is_none()) {
        Some(id) => Err(SpecError::UnmappedId { what: "group", id, count: count(&users.gids) }),
        None => Ok(()),
    }
}

/// CRI's rules: a command replaces the image's entrypoint and its arguments, arguments alone replace only the image's arguments.
fn command(command: &[String], args: &[String], image: &ImageFacts) -> Result<Vec<String>, SpecError> {
    let entrypoint: &[String] = match image.entrypoint.as_slice() {
        // How `docker build` spells "no entrypoint" over a base image that has one.
        [only] if only.is_empty() => &[],
        entrypoint => entrypoint,
    };
    let (first, first_name, rest, rest_name) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, "command", args, "args"),
        (true, false) => (entrypoint, "the image's entrypoint", args, "args"),
        (true, true) => (entrypoint, "the image's entrypoint", image.cmd.as_slice(), "the image's cmd"),
    };
    for (field, list) in [(first_name, first), (rest_name, rest)] {
        if let Some(index) = list.iter().position(|text| text.contains('\0')) {
            return Err(SpecError::ArgumentWithNul { field, index });
        }
    }
    let whole = [first, rest].concat();
    match whole.first() {
        Some(program) if !program.is_empty() => Ok(whole),
        Some(_) | None => Err(SpecError::NoCommand),
    }
}

/// Defaults, then the image's, then the request's; the last one to name a variable wins, at the place of the first.
fn environment(input: &SpecInput<'_>) -> Result<Vec<String>, SpecError> {
    let hostname = match (input.pod.namespaces.network, input.pod.hostname.as_str()) {
        (NamespaceMode::Host, _) => input.host.hostname.as_str(),
        (_, "") => input.pod_id.short(),
        (_, hostname) => hostname,
    };
    let mut variables = Variables::default();
    variables.set("PATH", DEFAULT_PATH);
    variables.set("HOSTNAME", hostname);
    if input.container.tty {
        variables.set("TERM", "xterm");
    }
    for entry in &input.image.env {
        // A line of the image without a name or without `=` sets nothing, as in a shell.
        if let Some((name, value)) = entry.split_once('=')
            && !name.is_empty()
        {
            check(name, value)?;
            variables.set(name, value);
        }
    }
    for (name, value) in &input.container.environment {
        match std::str::from_utf8(value) {
            Ok(value) => {
                check(name, value)?;
                variables.set(name, value);
            }
            Err(_) => {
                check(name, if value.contains(&0) { "\0" } else { "" })?;
                variables.unset(name);
            }
        }
    }
    if !variables.has("HOME") && !raw_variables(input.container).contains_key("HOME") {
        variables.set("HOME", &input.user.home);
    }
    Ok(variables.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// The variables whose values are not UTF-8, which the runtime spec cannot carry: `NAME=value`, each with a NUL byte behind it, for the
/// file that the OCI runtime reads beside it. Empty if there are none.
pub fn raw_environment(container: &ContainerRequest) -> Vec<u8> {
    let line = |(name, value): (&str, &[u8])| [name.as_bytes(), b"=", value, b"\0"].concat();
    raw_variables(container).into_iter().flat_map(line).collect()
}

/// The last one to set a variable wins, whether its value is text or not.
fn raw_variables(container: &ContainerRequest) -> BTreeMap<&str, &[u8]> {
    let last: BTreeMap<_, _> =
        container.environment.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    last.into_iter().filter(|(_, value)| std::str::from_utf8(value).is_err()).collect()
}

fn check(name: &str, value: &str) -> Result<(), SpecError> {
    let refuse = |why| Err(SpecError::Environment { name: quote(name), why });
    if name.is_empty() {
        return refuse("its name is empty");
    }
    if name.contains(|c: char| c == '=' || c.is_control()) {
        return refuse("its name holds `=` or a control character");
    }
    if value.contains('\0') {
        return refuse("its value holds a NUL byte");
    }
    Ok(())
}

fn quote(name: &str) -> String {
    name.chars().take(64).collect()
}

#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value.into(),
            None => self.0.push((name.into(), value.into())),
        }
    }

    fn unset(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }
}

fn working_dir(requested: &str, image: &str) -> Result<PathBuf, SpecError> {
    let (from, path) = match (requested, image) {
        ("", "") => return Ok("/".into()),
        ("", image) => ("image", image),
        (requested, _) => ("request", requested),
    };
    clean_absolute(path.as_ref()).map_err(|path| SpecError::WorkingDir { from, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let image = ImageFacts { entrypoint: vec!["E".into()], cmd: vec!["C".into()], ..Default::default() };
        let cleared = ImageFacts { entrypoint: vec!["".into()], ..image.clone() };
        let none = ImageFacts::default();
        let run = |image, c: &[&str], a: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            command(&owned(c), &owned(a), image).map(|words| words.join(" "))
        };
        assert_eq!(run(&image, &[], &[]), Ok("E C".into()));
        assert_eq!(run(&image, &[], &["a"]), Ok("E a".into()));
        assert_eq!(run(&image, &["c"], &[]), Ok("c".into()));
        assert_eq!(run(&image, &["c"], &["a"]), Ok("c a".into()));
        assert_eq!(run(&cleared, &[], &[]), Ok("C".into()));
        assert_eq!(run(&none, &[], &["a"]), Ok("a".into()));
        assert_eq!(run(&none, &[], &[]), Err(SpecError::NoCommand));
        assert_eq!(run(&none, &["", "x"], &[]), Err(SpecError::NoCommand));
        assert_eq!(
            run(&image, &["c"], &["ok", "a\0"]),
            Err(SpecError::ArgumentWithNul { field: "args", index: 1 })
        );
    }

    #[test]
    fn working_dirs() {
        assert_eq!(working_dir("", ""), Ok("/".into()));
        assert_eq!(working_dir("", "/app"), Ok("/app".into()));
        assert_eq!(working_dir("/w/../v", "/app"), Ok("/v".into()));
        assert!(matches!(working_dir("w", ""), Err(SpecError::WorkingDir { from: "request", .. })));
        assert!(matches!(working_dir("", "app"), Err(SpecError::WorkingDir { from: "image", .. })));
        assert!(matches!(working_dir("/a\0", ""), Err(SpecError::WorkingDir { .. })));
    }
}
