//! Runtime handlers: who runs the containers of the pods that name one, and in what such pods differ from others.

mod adapt;
mod base_spec;
mod features;
mod pause;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::request::PodRequest;
use shim::config::{Foreign, OciProgram, TaskOptions, TaskShim, runtime_state_root};

pub(crate) use adapt::{Adapted, RECURSIVE_READ_ONLY, adapt};
pub use base_spec::BaseSpecError;
pub use features::Features;
pub(crate) use pause::{PauseOf, cgroup_name, spec_of_pod};

/// A handler as the configuration has it.
#[derive(Debug, Clone)]
pub struct HandlerConfig {
    /// What a RuntimeClass calls it.
    pub name: String,
    pub kind: HandlerKind,
    /// Patterns of the keys of those annotations that containers get of their pod.
    pub pod_annotations: Vec<String>,
    /// The same for those of a container's own request.
    pub container_annotations: Vec<String>,
    /// An OCI spec that containers have beneath their own.
    pub base_spec: Option<PathBuf>,
    pub privileged: PrivilegedPolicy,
    /// The networks that its pods are attached to, where they are not those of all others.
    pub networks: Option<Arc<network::Networks>>,
}

/// Who runs the containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerKind {
    /// The runtime of this program.
    Builtin,
    /// A program with the command line of OCI runtimes.
    Oci(OciHandler),
    /// A containerd shim v2.
    Shim(ShimHandler),
}

/// A program with the command line of OCI runtimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciHandler {
    /// An absolute path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// Words for every call, before everything else.
    pub arguments: Vec<String>,
    /// Whether one process runs all containers of a pod, begun with a container that stands for the pod.
    pub pause: Pause,
    /// Where it keeps its state, a folder for each pod below; none: in the pods' own folders.
    pub root: Option<PathBuf>,
    /// How long one call of it may take.
    pub deadline: Duration,
}

impl OciHandler {
    fn wants_pause(&self) -> bool {
        match self.pause {
            Pause::Auto => self.program.file_name().is_some_and(|name| name == "runsc"),
            Pause::Always => true,
            Pause::Never => false,
        }
    }
}

/// A containerd shim v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimHandler {
    /// An absolute path, the name of a program that is looked for in `PATH`, or a name such as `io.containerd.runc.v2`.
    pub program: PathBuf,
    /// The OCI runtime that the shim runs, if it is one of runc's kind.
    pub runtime: Option<PathBuf>,
    /// The file that the shim's runtime is configured by.
    pub config_path: Option<PathBuf>,
    /// Whether it wants a container that stands for the pod.
    pub pause: Pause,
    /// Where the state of its runtime is kept, a folder for each pod below; none: in the pods' own folders.
    pub root: Option<PathBuf>,
    /// Where it may make its socket.
    pub socket_dir: PathBuf,
    /// How long one call of it may take.
    pub deadline: Duration,
}

/// Whether a foreign runtime gets a container that stands for the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// All shims get one but runc's, which needs none; of the OCI runtimes gVisor's does.
    Auto,
    Always,
    Never,
}

impl ShimHandler {
    /// The program's name: that of `io.containerd.runc.v2` is `containerd-shim-runc-v2`.
    fn program(&self) -> PathBuf {
        let name = self.program.to_string_lossy();
        match name.rsplitn(3, '.').collect::<Vec<_>>()[..] {
            [version, kind, company] if !name.contains('/') && company.contains('.') => {
                format!("containerd-shim-{kind}-{version}").into()
            }
            _ => self.program.clone(),
        }
    }

    fn is_of_runc(&self) -> bool {
        self.program().file_name().is_some_and(|name| name.to_string_lossy().contains("shim-runc-"))
    }

    fn wants_pause(&self) -> bool {
        match self.pause {
            Pause::Auto => !self.is_of_runc(),
            Pause::Always => true,
            Pause::Never => false,
        }
    }
}

/// What a privileged container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivilegedPolicy {
    /// Everything.
    Allow,
    /// Everything but the host's devices.
    WithoutHostDevices,
    /// Nothing: privileged pods are refused.
    Refuse,
}

/// All handlers of this node.
#[derive(Debug)]
pub(crate) struct Handlers {
    /// The name that pods mean which name none; empty is the runtime of this program, with nothing changed.
    default: String,
    all: Vec<Handler>,
}

/// A handler at work.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) config: HandlerConfig,
    asked: Mutex<Option<features::Asked>>,
}

/// Why a handler cannot run a pod or a container. The words follow "handler NAME:".
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    #[error("the program {program} is not in {folders}; install it, or set `path` in [runtimes.{name}]", program = .program.display())]
    NotFound { name: String, program: PathBuf, folders: String },
    #[error("{path} cannot be executed: {why}; set `path` in [runtimes.{name}]", path = .path.display())]
    NotExecutable { name: String, path: PathBuf, why: String },
    #[error("it runs no privileged pods on this node (`privileged` in [runtimes.{name}])")]
    Privileged { name: String },
    /// Found by asking the program.
    #[error("{program} cannot do {what} on this node, says its `features`", program = .program.display())]
    Lacks { program: PathBuf, what: &'static str },
    #[error(
        "environment variable {variable:?}: its value is no text, which only the built-in runtime can pass on"
    )]
    RawEnvironment { variable: String },
    #[error("checkpoints are made of containers of the built-in runtime only")]
    Checkpoint,
    #[error(transparent)]
    BaseSpec(#[from] BaseSpecError),
}

impl Handlers {
    pub(crate) fn new(default: String, configured: Vec<HandlerConfig>) -> Handlers {
        let all = configured.into_iter().map(|config| Handler { config, asked: Mutex::default() }).collect();
        Handlers { default, all }
    }

    /// The name under which a pod that asked for `asked` is run: the empty one is the runtime of this program, with nothing changed.
    ///
    /// # Errors
    /// No handler has this name; the names there are.
    pub(crate) fn resolve(&self, asked: &str) -> Result<String, String> {
        let name = if asked.is_empty() { &self.default } else { asked };
        if name.is_empty() || self.find(name).is_some() { Ok(name.to_owned()) } else { Err(self.known()) }
    }

    /// The handler of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&Handler> {
        self.all.iter().find(|handler| handler.config.name == name)
    }

    /// The names that a pod may ask for, as words.
    fn known(&self) -> String {
        let names: Vec<&str> = self.all.iter().map(|handler| handler.config.name.as_str()).collect();
        match (names.is_empty(), self.default.as_str()) {
            (true, _) => "the empty default only".into(),
            (false, "") => format!("{}, and the empty default", names.join(", ")),
            (false, default) => format!("{}, and the empty default, which is {default}", names.join(", ")),
        }
    }

    /// Each name that a pod may ask for, the empty one first, and who answers to it.
    pub(crate) fn names(&self) -> Vec<(String, Option<&Handler>)> {
        let named = self.all.iter().map(|handler| (handler.config.name.clone(), Some(handler)));
        std::iter::once((String::new(), self.find(&self.default))).chain(named).collect()
    }

    /// The networks that only handlers have.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Arc<network::Networks>> {
        self.all.iter().filter_map(|handler| handler.config.networks.as_ref())
    }
}

impl Handler {
    /// Whether the runtime is another program.
    pub(crate) fn is_foreign(&self) -> bool {
        match self.config.kind {
            HandlerKind::Builtin => false,
            HandlerKind::Oci(_) | HandlerKind::Shim(_) => true,
        }
    }

    /// Whether there is something to begin for a pod before its first container.
    pub(crate) fn is_begun(&self) -> bool {
        match &self.config.kind {
            HandlerKind::Builtin => false,
            HandlerKind::Oci(oci) => oci.wants_pause(),
            HandlerKind::Shim(_) => true,
        }
    }

    /// What the shim of a pod is told of it; none: nothing, as it is the runtime of this program.
    pub(crate) fn for_shim(
        &self,
        pod: &model::id::PodId,
        pod_dir: &Path,
        systemd_cgroup: bool,
    ) -> Result<Option<Foreign>, HandlerError> {
        match &self.config.kind {
            HandlerKind::Builtin => Ok(None),
            HandlerKind::Oci(oci) => Ok(Some(Foreign::Oci(OciProgram {
                path: self.program(&oci.program)?,
                arguments: oci.arguments.clone(),
                root: oci
                    .root
                    .as_ref()
                    .map_or_else(|| runtime_state_root(pod_dir), |root| root.join(pod.as_str())),
                systemd_cgroup,
                pause: oci.wants_pause(),
                deadline_secs: oci.deadline.as_secs(),
            }))),
            HandlerKind::Shim(shim) => {
                let own = || runtime_state_root(pod_dir);
                let root = shim.root.as_ref().map_or_else(own, |root| root.join(pod.as_str()));
                Ok(Some(Foreign::Task(TaskShim {
                    path: self.program(&shim.program())?,
                    options: match &shim.config_path {
                        _ if shim.is_of_runc() => {
                            TaskOptions::Runc { binary: shim.runtime.clone(), root, systemd_cgroup }
                        }
                        Some(path) => TaskOptions::Generic {
                            type_url: format!("{}.options", self.config.name),
                            config_path: path.clone(),
                        },
                        None => TaskOptions::None,
                    },
                    pause: shim.wants_pause(),
                    socket_dir: shim.socket_dir.clone(),
                    deadline_secs: shim.deadline.as_secs(),
                })))
            }
        }
    }

    /// What such pods have of the request that this handler does not allow.
    pub(crate) fn check(&self, request: &PodRequest) -> Result<(), HandlerError> {
        if request.privileged && self.config.privileged == PrivilegedPolicy::Refuse {
            return Err(HandlerError::Privileged { name: self.config.name.clone() });
        }
        Ok(())
    }

    /// The program, found and known to be executable.
    fn program(&self, program: &Path) -> Result<PathBuf, HandlerError> {
        let name = || self.config.name.clone();
        if program.is_absolute() {
            let why = match std::fs::metadata(program) {
                Ok(metadata) if !metadata.is_file() => "it is no file".into(),
                Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                    "its mode does not allow that".into()
                }
                Ok(_) => return Ok(program.to_owned()),
                Err(error) => error.to_string(),
            };
            return Err(HandlerError::NotExecutable { name: name(), path: program.to_owned(), why });
        }
        let folders = std::env::var("PATH").unwrap_or_default();
        let found = folders.split(':').filter(|folder| folder.starts_with('/')).find_map(|folder| {
            let path = Path::new(folder).join(program);
            let metadata = std::fs::metadata(&path).ok()?;
            (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(path)
        });
        found.ok_or_else(|| HandlerError::NotFound { name: name(), program: program.to_owned(), folders })
    }
}

#[cfg(test)]
mod tests;
