//! One file: a hook, the stages at which it runs, and the containers that get it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;
use regex::Regex;
use serde::Deserialize;

use crate::Asked;

/// The version that is understood.
const VERSION: &str = "1.0.0";

/// What a file says.
#[derive(Debug)]
pub(crate) struct Described {
    hook: oci::Hook,
    stages: Vec<Stage>,
    pub(crate) when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// Which containers get the hook: those for which everything holds that is said here.
#[derive(Debug)]
pub(crate) struct When {
    always: Option<bool>,
    annotations: Vec<(Regex, Regex)>,
    commands: Vec<Regex>,
    bind_mounts: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: String,
    hook: RawHook,
    when: RawWhen,
    stages: Vec<Stage>,
}

#[derive(Deserialize)]
struct RawHook {
    path: PathBuf,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    timeout: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawWhen {
    always: Option<bool>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    commands: Vec<String>,
    has_bind_mounts: Option<bool>,
}

/// Reads a file.
///
/// # Errors
/// It is no such file, or its hook is not there.
pub(crate) fn parse(text: &str) -> Result<Described, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: String,
    }
    let version = serde_json::from_str::<Versioned>(text).map_err(|why| why.to_string())?.version;
    if version != VERSION {
        return Err(format!("version {version:?} is not {VERSION}"));
    }
    let raw: RawFile = serde_json::from_str(text).map_err(|why| why.to_string())?;
    debug_assert_eq!(raw.version, VERSION);
    check_program(&raw.hook.path)?;
    if raw.stages.is_empty() {
        return Err("stages: a hook runs at one at least".into());
    }
    if raw.hook.timeout.is_some_and(|seconds| seconds <= 0) {
        return Err("hook.timeout: more than no seconds".into());
    }
    let pattern = |text: &String| Regex::new(text).map_err(|why| format!("when: {why}"));
    let annotations = raw.when.annotations.iter().map(|(key, value)| Ok((pattern(key)?, pattern(value)?)));
    let when = When {
        always: raw.when.always,
        annotations: annotations.collect::<Result<_, String>>()?,
        commands: raw.when.commands.iter().map(pattern).collect::<Result<_, String>>()?,
        bind_mounts: raw.when.has_bind_mounts,
    };
    let mut hook = oci::Hook::default();
    hook.set_path(raw.hook.path).set_args(raw.hook.args).set_env(raw.hook.env).set_timeout(raw.hook.timeout);
    Ok(Described { hook, stages: raw.stages, when })
}

fn check_program(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    if !path.is_absolute() {
        return Err(format!("hook.path {path:?} is not absolute"));
    }
    let found = std::fs::metadata(path).map_err(|error| format!("hook.path {path:?}: {error}"))?;
    let executable = found.is_file() && found.permissions().mode() & 0o111 != 0;
    executable.then_some(()).ok_or_else(|| format!("hook.path {path:?} is no executable file"))
}

impl When {
    /// Whether a container that runs `command` gets the hook. Where nothing is said, none does.
    pub(crate) fn matches(&self, asked: &Asked<'_>, command: &str) -> bool {
        let annotated = |(key, value): &(Regex, Regex)| {
            asked.annotations.iter().any(|(name, text)| key.is_match(name) && value.is_match(text))
        };
        let said = [
            self.always,
            (!self.annotations.is_empty()).then(|| self.annotations.iter().all(annotated)),
            (!self.commands.is_empty()).then(|| self.commands.iter().any(|wanted| wanted.is_match(command))),
            self.bind_mounts.map(|wanted| wanted && asked.bind_mounts),
        ];
        let mut said = said.into_iter().flatten().peekable();
        said.peek().is_some() && said.all(|holds| holds)
    }
}

impl Described {
    // Files may still ask for prestart hooks, and the runtime still runs them.
    #[allow(deprecated)]
    pub(crate) fn add_to(&self, hooks: &mut oci::Hooks) {
        for stage in &self.stages {
            let list = match stage {
                Stage::Prestart => hooks.prestart_mut(),
                Stage::CreateRuntime => hooks.create_runtime_mut(),
                Stage::CreateContainer => hooks.create_container_mut(),
                Stage::StartContainer => hooks.start_container_mut(),
                Stage::Poststart => hooks.poststart_mut(),
                Stage::Poststop => hooks.poststop_mut(),
            };
            list.get_or_insert_default().push(self.hook.clone());
        }
    }
}
