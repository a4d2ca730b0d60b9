//! The words between the runtime and the process it makes, over a socket pair that keeps message boundaries and closes on exec.

use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::error::{At, Failure, Stage, Warning};

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Something to tell the user.
    Warning(Warning),
    /// The mounts are made: the runtime's hooks may run now. Waits for [`Order::Go`].
    Hooks,
    /// All is done; waits for [`Order::Commit`].
    Ready,
    /// It failed and is ending.
    Failed(Failure),
}

/// What the runtime says.
#[derive(Debug)]
pub(crate) enum Order {
    /// What was waited for has happened: id maps written, cgroup joined, hooks run.
    Go,
    /// The container is recorded: wait for start. With the seccomp filter as it is to be loaded.
    Commit(Option<Filter>),
}

/// A compiled seccomp filter on its way to the process that loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) program: Vec<u8>,
    pub(crate) flags: u64,
}

const LARGEST: usize = 128 << 10;

/// One end of the socket pair.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> Result<(Channel, Channel), Failure> {
        let (one, other) = sys::socket::packet_pair().at(Stage::State, || "socket pair")?;
        Ok((Channel(one), Channel(other)))
    }

    /// Says `report`; the other side being gone is an error.
    pub(crate) fn report(&self, report: &Report) -> Result<(), Failure> {
        self.send(report)
    }

    /// Says `order`. If the process is gone, what it said last is the error.
    pub(crate) fn order(&self, order: &Order) -> Result<(), Failure> {
        self.send_order(order).map_err(|failure| {
            loop {
                match self.next_report() {
                    Ok(Some(Report::Failed(last))) => return last,
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return failure,
                }
            }
        })
    }

    fn send_order(&self, order: &Order) -> Result<(), Failure> {
        // The filter is bytes: they go behind the tag as they are.
        let bytes = match order {
            Order::Go => vec![b'g'],
            Order::Commit(None) => vec![b'c'],
            Order::Commit(Some(filter)) => {
                let mut bytes = Vec::with_capacity(9 + filter.program.len());
                bytes.push(b'f');
                bytes.extend_from_slice(&filter.flags.to_ne_bytes());
                bytes.extend_from_slice(&filter.program);
                bytes
            }
        };
        sys::socket::send(self.0.as_fd(), &bytes, &[])
            .at(Stage::State, || "message to the container's process")
    }

    fn send(&self, report: &Report) -> Result<(), Failure> {
        let bytes =
            serde_json::to_vec(report).map_err(|error| Failure::new(Stage::State, "message", error))?;
        sys::socket::send(self.0.as_fd(), &bytes, &[]).at(Stage::State, || "message to the runtime")
    }

    /// The next report; `None` if the process is gone (or became its command, which closes the channel).
    pub(crate) fn next_report(&self) -> Result<Option<Report>, Failure> {
        let mut buffer = [0; 16 << 10];
        let length = match sys::socket::receive(self.0.as_fd(), &mut buffer) {
            // The process ended with an order unread: the kernel says so once, before what it had said itself.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                sys::socket::receive(self.0.as_fd(), &mut buffer)
            }
            other => other,
        };
        let length = length.at(Stage::State, || "message from the container's process")?.0;
        if length == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&buffer[..length])
            .map(Some)
            .map_err(|error| Failure::new(Stage::State, "message from the container's process", error))
    }

    /// The next order.
    ///
    /// # Errors
    /// The runtime is gone, and with it whoever would take back what was made.
    pub(crate) fn next_order(&self) -> Result<Order, Failure> {
        let mut buffer = vec![0; LARGEST];
        let (length, _) = sys::socket::receive(self.0.as_fd(), &mut buffer).at(Stage::State, || "order")?;
        let message = &buffer[..length];
        match message.split_first() {
            Some((b'g', _)) => Ok(Order::Go),
            Some((b'c', _)) => Ok(Order::Commit(None)),
            Some((b'f', rest)) if rest.len() >= 8 => {
                let (flags, program) = rest.split_at(8);
                let flags = u64::from_ne_bytes(flags.try_into().unwrap_or_default());
                Ok(Order::Commit(Some(Filter { program: program.into(), flags })))
            }
            _ => Err(Failure::new(Stage::State, "runtime", "it is gone")),
        }
    }

    pub(crate) fn expect_go(&self) -> Result<(), Failure> {
        match self.next_order()? {
            Order::Go => Ok(()),
            Order::Commit(_) => Err(Failure::new(Stage::State, "order", "out of turn")),
        }
    }
}
