//! Attach and Resize: joining the streams of a container's main process, and the size of its terminal.

use super::Shim;
use super::attached::{Attached, Ends, Still};
use super::container::Phase;
use super::dispatch::Outcome;
use crate::parent::message;
use crate::protocol::{AttachRequest, CallError, Empty, ErrorCode, ResizeRequest};
use std::os::fd::{AsFd, OwnedFd};

/// Attachments of one pod at one time: each has up to three descriptors, of which the shim must keep some for its work.
const MAX_ATTACHED: usize = 64;

impl Shim {
    pub(super) fn attach(
        &mut self,
        request: AttachRequest,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, CallError> {
        let mut ends = ends(&request, descriptors)?;
        let index = self.find(&request.container_id)?;
        let taken: usize = self.containers.iter().map(|container| container.attached.len()).sum();
        let serial = self.serial();
        let container = &mut self.containers[index];
        match container.phase {
            Phase::Created | Phase::Starting(_) | Phase::StartingInHelper | Phase::Running => {}
            Phase::Creating { .. } | Phase::Draining { .. } | Phase::Exited | Phase::Deleting => {
                let state = container.phase_name();
                let why = format!("container {} is {state}, nobody can attach to it", request.container_id);
                return Err(CallError::new(ErrorCode::WrongState, why));
            }
        }
        if taken >= MAX_ATTACHED {
            let why = format!("{MAX_ATTACHED} clients are attached to containers of this pod already");
            return Err(CallError::new(ErrorCode::Exhausted, why));
        }
        // What there is not is closed at once, so that he is not left waiting.
        ends.source = ends.source.filter(|_| container.stdin.is_some());
        for (sink, output) in ends.sinks.iter_mut().zip(&container.outputs) {
            *sink = sink.take().filter(|_| output.is_some());
        }
        let attached =
            Attached::open(ends, serial, container.takes_input(), &self.poller).map_err(|cause| {
                let why =
                    format!("container {}: the streams cannot be joined: {cause}", request.container_id);
                CallError::new(ErrorCode::InvalidArgument, why)
            })?;
        if !attached.is_over() {
            container.attached.push(attached);
        }
        Ok(Outcome::Now(message(&Empty {})))
    }

    pub(super) fn resize(&mut self, request: ResizeRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.container_id)?;
        let refuse = |code, why: String| Err(CallError::new(code, why));
        let side = |length: u32| u16::try_from(length).ok().filter(|length| *length > 0);
        let (Some(columns), Some(rows)) = (side(request.width), side(request.height)) else {
            return refuse(ErrorCode::InvalidArgument, "width, height: each is 1 to 65535 characters".into());
        };
        let container = &self.containers[index];
        if let Some(foreign) =
            self.foreign.clone().filter(|foreign| foreign.parents() && container.has_terminal)
        {
            return self.resize_foreign(foreign, container.target(), columns, rows);
        }
        let Some(terminal) = self.containers[index].terminal() else {
            let why = format!("container {} has no terminal that could be resized", request.container_id);
            return refuse(ErrorCode::WrongState, why);
        };
        sys::terminal::set_size(terminal.as_fd(), rows, columns).map_err(|cause| {
            let why = format!("the terminal of container {}: {cause}", request.container_id);
            CallError::new(ErrorCode::Internal, why)
        })?;
        Ok(Outcome::Now(message(&Empty {})))
    }

    pub(super) fn sink_ready(&mut self, serial: u32, index: usize) {
        let Some(container) = self.containers.iter_mut().find(|container| container.has(serial)) else {
            return;
        };
        let still = container
            .attached
            .iter_mut()
            .find(|attached| attached.serial == serial)
            .map(|attached| attached.sink_ready(index, &self.poller));
        if still == Some(Still::Gone) {
            container.leave(serial, &self.poller);
        }
    }

    pub(super) fn source_readable(&mut self, serial: u32) {
        if let Some(container) = self.containers.iter_mut().find(|container| container.has(serial)) {
            container.source_readable(serial, &self.poller);
        }
    }

    pub(super) fn input_writable(&mut self, container: u32) {
        if let Some(container) = self.containers.iter_mut().find(|known| known.serial == container) {
            container.input_writable(&self.poller);
        }
    }
}

fn ends(request: &AttachRequest, descriptors: Vec<OwnedFd>) -> Result<Ends, CallError> {
    let streams = [request.has_stdin, request.has_stdout, request.has_stderr];
    if descriptors.len() != streams.iter().filter(|has| **has).count() || descriptors.is_empty() {
        let why = "has_stdin, has_stdout, has_stderr: at least one, and as many as there are descriptors";
        return Err(CallError::new(ErrorCode::InvalidArgument, why));
    }
    let mut descriptors = descriptors.into_iter();
    let mut next = |has: bool| if has { descriptors.next() } else { None };
    Ok(Ends { source: next(streams[0]), sinks: [next(streams[1]), next(streams[2])] })
}
