//! The last steps of init: attributes of the process, the wait for start, and the command.

use std::os::fd::AsFd;

use sys::process::exit_now;

use super::{Built, Plan, warn};
use crate::channel::{Order, Report};
use crate::command::Command;
use crate::error::{At, Failure, Stage};
use crate::process::Attributes;
use crate::record::Status;

/// Gives this process its attributes, says that it is ready, waits for start, and becomes the command. Returns only what failed before
/// the wait; what fails later is told to whoever started, and ends this process.
pub(super) fn wait_and_exec(plan: &Plan<'_>, built: Built) -> Failure {
    match prepare(plan, built) {
        Ok(waiting) => waiting.run(plan),
        Err(failure) => failure,
    }
}

struct Waiting {
    attributes: Attributes,
    command: Command,
    filter: Option<crate::channel::Filter>,
    pid_outside: i32,
}

fn prepare(plan: &Plan<'_>, built: Built) -> Result<Waiting, Failure> {
    let mut warnings = Vec::new();
    let has_filter = plan.linux.seccomp().is_some();
    let attributes = Attributes::of(plan.process, has_filter, &mut warnings)?;
    let command = Command::of(plan.process, &plan.raw_environment)?;
    attributes.limits(plan.process, &mut warnings)?;
    crate::process::personality(plan.linux.personality().as_ref())?;
    crate::process::memory_policy(plan.linux.memory_policy().as_ref())?;
    crate::process::enter_directory(built.cwd.as_fd(), plan.process.cwd())?;
    attributes.owner_of_streams();
    attributes.become_user(plan.process)?;
    built.labels.apply()?;
    if plan.check_command {
        command.check()?;
    }
    for warning in warnings {
        warn(plan, warning);
    }
    plan.channel.report(&Report::Ready)?;
    match plan.channel.next_order()? {
        Order::Commit(filter) => Ok(Waiting { attributes, command, filter, pid_outside: built.pid_outside }),
        Order::Go => Err(Failure::new(Stage::State, "order", "out of turn")),
    }
}

impl Waiting {
    fn run(self, plan: &Plan<'_>) -> ! {
        // Start may be long in coming: nothing of the host stays open meanwhile but what start and the command need.
        let mut keep = vec![plan.listener.as_fd()];
        keep.extend(plan.seccomp_listener.as_ref().map(AsFd::as_fd));
        let _ = sys::parent::close_from_except(3_u32.saturating_add(plan.preserve_fds), &keep);
        let start = loop {
            match rustix::net::accept_with(&plan.listener, rustix::net::SocketFlags::CLOEXEC) {
                Ok(start) => break start,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                Err(_) => exit_now(1),
            }
        };
        let failure = self.become_command(plan);
        let code = if failure.errno == Some(rustix::io::Errno::NOENT.raw_os_error()) { 127 } else { 126 };
        let bytes = serde_json::to_vec(&failure).unwrap_or_else(|_| failure.to_string().into_bytes());
        let _ = sys::socket::send(start.as_fd(), &bytes, &[]);
        exit_now(code)
    }

    fn become_command(&self, plan: &Plan<'_>) -> Failure {
        match self.last_steps(plan) {
            Ok(()) => self.command.execute(),
            Err(failure) => failure,
        }
    }

    fn last_steps(&self, plan: &Plan<'_>) -> Result<(), Failure> {
        if let Some(hooks) = plan.spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref()) {
            // They run in the container, and in its environment unless they name one.
            let environment = plan.process.env().as_deref().unwrap_or_default();
            crate::hooks::run_in(hooks, "startContainer", &state(plan, "created"), environment)?;
        }
        sys::process::close_on_exec_from(3).at(Stage::Command, || "closing descriptors")?;
        sys::process::inherit_descriptors(3, plan.preserve_fds)
            .at(Stage::Command, || format!("{} descriptors to preserve", plan.preserve_fds))?;
        if let Some(filter) = &self.filter {
            let state = process_state(plan, self.pid_outside);
            let listener = plan.seccomp_listener.as_ref().map(|socket| (socket.as_fd(), state.as_slice()));
            crate::seccomp_filter::load(filter, listener)?;
            self.attributes.finish()?;
        }
        Ok(())
    }
}

/// The state that hooks inside the container get, with the pid that they see.
pub(super) fn state(plan: &Plan<'_>, status: &str) -> serde_json::Value {
    let mut state = plan.state.oci_state(Status::Created);
    state["status"] = status.into();
    state["pid"] = rustix::process::getpid().as_raw_nonzero().get().into();
    state
}

/// The state of the container's process, as the receiver of a seccomp listener gets it: with the pid that the runtime sees.
fn process_state(plan: &Plan<'_>, pid: i32) -> Vec<u8> {
    let metadata = plan.linux.seccomp().as_ref().and_then(|seccomp| seccomp.listener_metadata().clone());
    let mut container = state(plan, "creating");
    container["pid"] = pid.into();
    let mut document = serde_json::json!({
        "ociVersion": plan.state.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": container,
    });
    if let Some(metadata) = metadata {
        document["metadata"] = metadata.into();
    }
    document.to_string().into_bytes()
}
