//! A conversation with a program in a container over a streaming URL: keys and bytes there, output here, and at the end how it ended.

use super::failure::Failure;
use super::terminal::{Input, Raw, size};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io::{self, Write};
use stream::client::{Receiver, Sender, channel};
use tokio::signal::unix::{SignalKind, signal};

/// What is read from standard input at a time.
const CHUNK: usize = 32 << 10;

/// An end that is told in more bytes than that is none.
const MAX_STATUS: usize = 64 << 10;

/// What somebody wants of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Standard input goes to the program.
    pub stdin: bool,
    /// What the program writes comes here.
    pub output: bool,
    /// The program has a terminal: its size follows this one's, which gives every key as it is.
    pub terminal: bool,
    /// Ctrl-P Ctrl-Q leaves the program alone.
    pub detach_keys: bool,
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The program exited with another code than 0.
    Exited(u8),
    /// All is well, or the server does not tell of exit codes.
    Well,
    /// The user left.
    Detached,
}

/// Connects to a URL of exec or attach.
pub(crate) async fn open(url: &str) -> Result<(Sender, Receiver), Failure> {
    Ok(stream::client::connect(url, stream::client::REMOTE).await?)
}

/// Talks until one side ends it. Ctrl-C in a terminal that is not raw, and the other signals that end programs, end it as [`Failure::Interrupted`];
/// the terminal is as it was before then, too.
pub(crate) async fn talk(connection: (Sender, Receiver), wants: Wants) -> Result<Ended, Failure> {
    let (sender, receiver) = connection;
    let mut ending = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(|kind| signal(kind).map_err(Failure::Signals));
    let [interrupt, terminate, hangup] = &mut ending;
    let (interrupt, terminate, hangup) = (taken(interrupt)?, taken(terminate)?, taken(hangup)?);
    let _raw = if wants.stdin && wants.terminal { Raw::enter().map_err(Failure::Input)? } else { None };
    tokio::select! {
        ended = hear(receiver) => ended,
        ended = speak(&sender, wants) => ended,
        never = follow_size(&sender), if wants.terminal => match never? {},
        _ = interrupt.recv() => Err(Failure::Interrupted),
        _ = terminate.recv() => Err(Failure::Interrupted),
        _ = hangup.recv() => Err(Failure::Interrupted),
    }
}

fn taken<T>(result: &mut Result<T, Failure>) -> Result<&mut T, Failure> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(std::mem::replace(error, Failure::Interrupted)),
    }
}

/// Writes what comes until the end is told.
async fn hear(mut receiver: Receiver) -> Result<Ended, Failure> {
    let mut status = Vec::new();
    while let Some((channel, bytes)) = receiver.next().await? {
        match channel {
            channel::STDOUT => write(io::stdout, bytes).await?,
            channel::STDERR => write(io::stderr, bytes).await?,
            channel::STATUS if status.len() + bytes.len() <= MAX_STATUS => {
                status.extend_from_slice(&bytes);
                // Nothing follows it; some servers wait for the client to close.
                if let Ok(told) = serde_json::from_slice(&status) {
                    return ended(&told);
                }
            }
            _ => {}
        }
    }
    Ok(Ended::Well)
}

/// Writes where it holds up nothing else, however slowly it is read.
async fn write<W: Write>(to: impl FnOnce() -> W + Send + 'static, bytes: Vec<u8>) -> Result<(), Failure> {
    let written = tokio::task::spawn_blocking(move || {
        let mut to = to();
        to.write_all(&bytes)?;
        to.flush()
    });
    written.await.map_err(io::Error::other).flatten().map_err(Failure::Output)
}

/// What a `metav1.Status` says.
fn ended(status: &Value) -> Result<Ended, Failure> {
    if status["status"] == "Success" {
        return Ok(Ended::Well);
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()?.parse::<u32>().ok());
    match code {
        Some(code) => Ok(Ended::Exited(u8::try_from(code).unwrap_or(u8::MAX))),
        None => Err(Failure::Session(status["message"].as_str().unwrap_or("it failed").to_owned())),
    }
}

/// Sends standard input; ends only when the user leaves.
async fn speak(sender: &Sender, wants: Wants) -> Result<Ended, Failure> {
    if wants.stdin {
        let input = Input::new();
        let mut buffer = vec![0; CHUNK];
        let mut keys = DetachKeys { wanted: wants.detach_keys, held: false };
        loop {
            let length = input.read(&mut buffer).await.map_err(Failure::Input)?;
            let (bytes, leaves) = keys.pass(&buffer[..length]);
            // That the connection is broken is heard on the other side of it.
            if sender.send(channel::STDIN, &bytes).await.is_err() {
                break;
            }
            if leaves {
                return Ok(Ended::Detached);
            }
            if length == 0 {
                let _ = sender.end(channel::STDIN).await;
                break;
            }
        }
    }
    std::future::pending().await
}

/// Ctrl-P Ctrl-Q, looked for in what is typed.
struct DetachKeys {
    wanted: bool,
    /// A Ctrl-P was typed and not sent.
    held: bool,
}

impl DetachKeys {
    /// What is to be sent of `typed`, and whether the user leaves.
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        const CTRL_P: u8 = 0x10;
        const CTRL_Q: u8 = 0x11;
        let mut sent = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            if std::mem::take(&mut self.held) {
                if byte == CTRL_Q {
                    return (sent, true);
                }
                sent.push(CTRL_P);
            }
            if self.wanted && byte == CTRL_P {
                self.held = true;
            } else {
                sent.push(byte);
            }
        }
        (sent, false)
    }
}

/// Tells the size of the user's terminal, now and whenever it changes.
async fn follow_size(sender: &Sender) -> Result<Infallible, Failure> {
    let mut changed = signal(SignalKind::window_change()).map_err(Failure::Signals)?;
    loop {
        if let Some((width, height)) = size() {
            let size = json!({ "Width": width, "Height": height }).to_string();
            let _ = sender.send(channel::RESIZE, size.as_bytes()).await;
        }
        if changed.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<stream::client::ClientError> for Failure {
    fn from(error: stream::client::ClientError) -> Failure {
        Failure::Streaming(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_is_read_as_kubernetes_writes_it() {
        assert_eq!(ended(&json!({ "status": "Success" })).unwrap(), Ended::Well);
        let exited = json!({ "status": "Failure", "reason": "NonZeroExitCode", "message": "m",
            "details": { "causes": [{ "reason": "ExitCode", "message": "3" }] } });
        assert_eq!(ended(&exited).unwrap(), Ended::Exited(3));
        let failed = json!({ "status": "Failure", "reason": "InternalError", "message": "no shim" });
        assert!(ended(&failed).unwrap_err().to_string().contains("no shim"));
    }

    proptest! {
        #[test]
        fn keys_are_sent_as_they_are_typed(typed in prop::collection::vec(prop::collection::vec(0x0eu8..0x13, 0..6), 0..8)) {
            let all: Vec<u8> = typed.concat();
            let mut keys = DetachKeys { wanted: true, held: false };
            let (mut sent, mut left) = (Vec::new(), false);
            for keys_now in &typed {
                let (bytes, leaves) = keys.pass(keys_now);
                sent.extend(bytes);
                if leaves {
                    left = true;
                    break;
                }
            }
            let end = all.windows(2).position(|pair| pair == [0x10, 0x11]);
            prop_assert_eq!(left, end.is_some());
            let expected = &all[..end.unwrap_or(all.len() - usize::from(keys.held))];
            prop_assert_eq!(&sent[..], expected);
            let mut all_of_it = DetachKeys { wanted: false, held: false };
            prop_assert_eq!(all_of_it.pass(&all), (all, false));
        }
    }
}
