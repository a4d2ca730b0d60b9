//! Pause, Checkpoint and Resume: containers that are frozen together while CRIU saves their processes, and that run again whatever happens to
//! whoever asked for it.

use super::Shim;
use super::container::{Container, Phase};
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::reap::Purpose;
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::message;
use crate::protocol::{CallError, CheckpointRequest, Empty, ErrorCode, PauseRequest, ResumeRequest};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The pause before containers that could not be thawed are thawed again.
const AGAIN: Duration = Duration::from_secs(1);

/// Containers that are frozen together.
#[derive(Debug)]
pub(super) struct Pause {
    ids: Vec<String>,
    /// Whose it is: it ends with that connection.
    connection: u32,
    /// Then it ends; or the next attempt to end it is due.
    until: Option<Instant>,
    phase: PausePhase,
}

/// ```text
/// Freezing --> Frozen --> Thawing --> (gone)
///     '---------------------^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PausePhase {
    /// A helper freezes. `unwanted` once the pause ended meanwhile.
    Freezing {
        unwanted: bool,
    },
    Frozen,
    /// `overdue` if nobody asked for the end.
    Thawing {
        overdue: bool,
    },
}

impl Shim {
    pub(super) fn pause(&mut self, request: PauseRequest, connection: u32) -> Result<Outcome, CallError> {
        if self.pause.is_some() {
            let what = "the pod is being checkpointed already; try again when that is done";
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        if self.foreign.is_some() {
            let what = "the pod's runtime is another program; it is not asked for checkpoints";
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        for id in &request.ids {
            let container = &self.containers[self.find(id)?];
            if !matches!(container.phase, Phase::Running) || container.exit.is_some() {
                let what = format!(
                    "container {id} is {}; only a running container can be checkpointed",
                    container.phase_name()
                );
                return Err(CallError::new(ErrorCode::WrongState, what));
            }
        }
        let (root, ids) = (self.runtime_root.clone(), request.ids.clone());
        self.start_helper(Purpose::Pause, Handed::default(), move |_| freeze(&root, &ids))
            .map_err(|cause| CallError::new(ErrorCode::CheckpointFailed, cause.to_string()).at("helper"))?;
        let until = Instant::now().checked_add(Duration::from_millis(request.limit_ms));
        let phase = PausePhase::Freezing { unwanted: false };
        self.pause = Some(Pause { ids: request.ids, connection, until, phase });
        Ok(Outcome::Later(Key::Paused))
    }

    /// What the helper said that freezes.
    pub(super) fn paused(&mut self, report: Report) {
        let Some(pause) = &mut self.pause else {
            return;
        };
        let PausePhase::Freezing { unwanted } = pause.phase else {
            return;
        };
        let result = match report {
            Report::Done { .. } if unwanted => Err(over()),
            Report::Done { .. } => message(&Empty {}),
            other => Err(other.into_error(ErrorCode::CheckpointFailed)),
        };
        pause.phase = PausePhase::Frozen;
        let kept = result.is_ok();
        self.answer(Key::Paused, result);
        if !kept {
            self.thaw(unwanted);
        }
    }

    pub(super) fn checkpoint(&mut self, request: CheckpointRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let frozen = |pause: &&Pause| pause.phase == PausePhase::Frozen && pause.ids.contains(&request.id);
        if self.pause.as_ref().filter(frozen).is_none() {
            let what = format!("container {} is not paused for a checkpoint", request.id);
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        for path in [&request.criu, &request.images, &request.work] {
            if !Path::new(path).is_absolute() {
                let what = format!("{path:?} is not an absolute path");
                return Err(CallError::new(ErrorCode::InvalidArgument, what));
            }
        }
        let serial = self.containers[index].serial;
        let purpose = Purpose::Checkpoint { container: serial };
        if self.helpers.has(|other| *other == purpose) {
            let what = format!("container {} is being checkpointed already", request.id);
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        let (root, pipes) = (self.runtime_root.clone(), self.containers[index].pipes());
        let has_terminal = self.containers[index].has_terminal;
        self.start_helper(purpose, Handed::default(), move |_| save(&root, &request, pipes, has_terminal))
            .map_err(|cause| CallError::new(ErrorCode::CheckpointFailed, cause.to_string()).at("helper"))?;
        Ok(Outcome::Later(Key::Checkpointed(serial)))
    }

    /// What the helper said that runs CRIU.
    pub(super) fn checkpointed(&mut self, serial: u32, report: Report) {
        let overdue = self.pause.as_ref().is_some_and(|p| p.phase == PausePhase::Thawing { overdue: true });
        let result = match report {
            Report::Done { .. } => message(&Empty {}),
            _ if overdue => Err(over()),
            other => Err(other.into_error(ErrorCode::CheckpointFailed)),
        };
        self.answer(Key::Checkpointed(serial), result);
        self.go_on_thawing();
    }

    pub(super) fn resume(&mut self, _: ResumeRequest) -> Result<Outcome, CallError> {
        if self.pause.is_none() {
            return Ok(Outcome::Now(message(&Empty {})));
        }
        self.end_pause(false);
        Ok(Outcome::Later(Key::Resumed))
    }

    pub(super) fn pause_deadline(&self) -> Option<Instant> {
        self.pause.as_ref().and_then(|pause| pause.until)
    }

    pub(super) fn end_overdue_pause(&mut self, now: Instant) {
        if self.pause_deadline().is_some_and(|until| until <= now) {
            self.end_pause(true);
        }
    }

    /// A client has left. What it had frozen runs again.
    pub(super) fn end_pause_of_gone(&mut self) {
        let gone = |pause: &Pause| !self.calls.has_client(pause.connection);
        if self
            .pause
            .as_ref()
            .is_some_and(|pause| !matches!(pause.phase, PausePhase::Thawing { .. }) && gone(pause))
        {
            self.end_pause(true);
        }
    }

    fn end_pause(&mut self, overdue: bool) {
        let Some(pause) = &mut self.pause else {
            return;
        };
        pause.until = None;
        match &mut pause.phase {
            // It reports within the time that freezing may take.
            PausePhase::Freezing { unwanted } => *unwanted = true,
            PausePhase::Frozen => self.thaw(overdue),
            PausePhase::Thawing { .. } => self.go_on_thawing(),
        }
    }

    fn thaw(&mut self, overdue: bool) {
        let Some(pause) = &mut self.pause else {
            return;
        };
        pause.phase = PausePhase::Thawing { overdue };
        pause.until = None;
        // CRIU ends with its helper, and freezes what it had found frozen: it must be gone first.
        self.helpers.kill(|purpose| matches!(purpose, Purpose::Checkpoint { .. }));
        self.go_on_thawing();
    }

    /// Thaws, once nobody saves anything and unless that is under way.
    fn go_on_thawing(&mut self) {
        let Some(pause) = self.pause.as_ref().filter(|p| matches!(p.phase, PausePhase::Thawing { .. }))
        else {
            return;
        };
        let busy = |purpose: &Purpose| matches!(purpose, Purpose::Checkpoint { .. } | Purpose::Resume);
        if self.helpers.is_busy(busy) {
            return;
        }
        let (root, ids) = (self.runtime_root.clone(), pause.ids.clone());
        if let Err(cause) =
            self.start_helper(Purpose::Resume, Handed::default(), move |_| release(&root, &ids))
        {
            self.resumed(Report::failed(ErrorCode::CheckpointFailed, "helper", cause));
        }
    }

    /// What the helper said that thaws. What is frozen is not forgotten before it runs again.
    pub(super) fn resumed(&mut self, report: Report) {
        let result = match report {
            Report::Done { .. } => {
                self.pause = None;
                message(&Empty {})
            }
            other => {
                let error = other.into_error(ErrorCode::CheckpointFailed);
                warning!("{error}; it will be tried again");
                if let Some(pause) = &mut self.pause {
                    pause.until = Some(Instant::now() + AGAIN);
                }
                Err(error)
            }
        };
        self.answer(Key::Resumed, result);
    }
}

impl Container {
    /// The inodes of the pipes that are its streams: both ends of a pipe have the same.
    fn pipes(&self) -> [Option<u64>; 3] {
        let inode = |fd: Option<std::os::fd::BorrowedFd<'_>>| {
            fd.filter(|_| !self.has_terminal)
                .and_then(|fd| rustix::fs::fstat(fd).ok())
                .map(|stat| stat.st_ino)
        };
        let [stdout, stderr] = &self.outputs;
        [
            inode(self.stdin.as_ref().map(AsFd::as_fd)),
            inode(stdout.as_ref().map(AsFd::as_fd)),
            inode(stderr.as_ref().map(AsFd::as_fd)),
        ]
    }
}

fn over() -> CallError {
    CallError::new(
        ErrorCode::DeadlineExceeded,
        "the time for the checkpoint is over; the containers run again",
    )
}

/// Freezes all, or none.
fn freeze(root: &Path, ids: &[String]) -> Report {
    for (done, id) in ids.iter().enumerate() {
        if let Err(error) = runtime::pause(root, id) {
            let code = match &error {
                runtime::UpdateError::Stopped { .. } => ErrorCode::WrongState,
                runtime::UpdateError::Lookup(_) | runtime::UpdateError::Failed { .. } => {
                    ErrorCode::CheckpointFailed
                }
            };
            for id in &ids[..done] {
                let _ = runtime::resume(root, id);
            }
            return Report::failed(code, "freezing", error);
        }
    }
    Report::Done { warnings: Vec::new() }
}

/// Thaws all. What has ended needs no thawing.
fn release(root: &Path, ids: &[String]) -> Report {
    let mut first = None;
    for id in ids {
        match runtime::resume(root, id) {
            Ok(()) | Err(runtime::UpdateError::Stopped { .. } | runtime::UpdateError::Lookup(_)) => {}
            Err(error @ runtime::UpdateError::Failed { .. }) => {
                first.get_or_insert(error);
            }
        }
    }
    match first {
        None => Report::Done { warnings: Vec::new() },
        Some(error) => Report::failed(ErrorCode::CheckpointFailed, "thawing", error),
    }
}

fn save(root: &Path, request: &CheckpointRequest, pipes: [Option<u64>; 3], has_terminal: bool) -> Report {
    let saved = runtime::checkpoint(&runtime::CheckpointRequest {
        id: &request.id,
        state_root: root,
        criu: Path::new(&request.criu),
        images: Path::new(&request.images),
        work: Path::new(&request.work),
        pipes: Some(pipes),
        leave_running: true,
        tcp_established: false,
        external_unix: false,
        file_locks: true,
        shell_job: has_terminal,
        more: runtime::CriuOptions::default(),
        deadline: None,
    });
    match saved {
        Ok(()) => Report::Done { warnings: Vec::new() },
        Err(error) => {
            let (code, stage) = match &error {
                runtime::CheckpointError::NotRunning { .. } => (ErrorCode::WrongState, "state".into()),
                runtime::CheckpointError::Lookup(_) => (ErrorCode::CheckpointFailed, "state".into()),
                runtime::CheckpointError::Failed { failure, .. } => {
                    (ErrorCode::CheckpointFailed, failure.stage.to_string())
                }
            };
            Report::failed(code, stage, error)
        }
    }
}
