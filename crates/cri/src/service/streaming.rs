//! The calls that answer with a URL: what is asked is checked now, and done when a client comes with the URL.

use node::Node;
use stream::{Server, TooManyTokens};
use tonic::Status;

use super::code::Coded;
use crate::runtime_v1::*;
use crate::translate::{BadField, text};

pub(super) fn exec(node: &Node, server: &Server, request: ExecRequest) -> Result<ExecResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    command(&request.cmd)?;
    streams(request.stdin, request.stdout, request.stderr, request.tty)?;
    let record = node.can_exec(&id, &request.cmd).map_err(|error| error.status())?;
    let url = server.exec_url(stream::Exec {
        container: record.id.to_string(),
        command: request.cmd,
        terminal: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    });
    Ok(ExecResponse { url: url.map_err(|error| crowded(&error))? })
}

pub(super) fn attach(node: &Node, server: &Server, request: AttachRequest) -> Result<AttachResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    streams(request.stdin, request.stdout, request.stderr, request.tty)?;
    let record = node.can_attach(&id).map_err(|error| error.status())?;
    let url = server.attach_url(stream::Attach {
        container: record.id.to_string(),
        terminal: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    });
    Ok(AttachResponse { url: url.map_err(|error| crowded(&error))? })
}

pub(super) fn port_forward(
    node: &Node,
    server: &Server,
    request: PortForwardRequest,
) -> Result<PortForwardResponse, Status> {
    let id = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let port = |port: &i32| u16::try_from(*port).ok().filter(|port| *port > 0);
    let ports: Option<Vec<u16>> = request.port.iter().map(port).collect();
    let ports = ports.ok_or_else(|| BadField::new("port", "a port is a number from 1 to 65535"))?;
    let record = node.can_connect(&id).map_err(|error| error.status())?;
    let url = server.port_forward_url(record.id.to_string(), ports);
    Ok(PortForwardResponse { url: url.map_err(|error| crowded(&error))? })
}

/// A command as CRI sends it.
pub(super) fn command(words: &[String]) -> Result<(), BadField> {
    if words.is_empty() {
        return Err(BadField::new("cmd", "it is empty"));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(BadField::new("cmd", "an argument cannot hold a NUL byte"));
    }
    Ok(())
}

fn streams(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<(), BadField> {
    if !(stdin || stdout || stderr) {
        return Err(BadField::new("stdin, stdout, stderr", "at least one of them has to be true"));
    }
    if tty && stderr {
        return Err(BadField::new("stderr", "with tty it has to be false: a terminal has one output"));
    }
    Ok(())
}

fn crowded(error: &TooManyTokens) -> Status {
    Status::resource_exhausted(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_no_stderr_and_nothing_is_no_session() {
        assert!(streams(false, false, false, false).is_err());
        assert!(streams(true, true, true, true).is_err());
        assert!(streams(true, true, false, true).is_ok());
        assert!(streams(false, false, true, false).is_ok());
    }
}
