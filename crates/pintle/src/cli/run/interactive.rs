//! `run -i` and `run -t`: the program is talked with, from its first byte on. Without a terminal only its input goes this way.

use super::args::Args;
use crate::cli::attach;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::session::{Ended, Wants, open, talk};
use crate::cli::stop::{GRACE_SECS, stop_container};
use stream::client::{Receiver, Sender};

/// A connection to the program's streams.
pub(super) type Session = (Sender, Receiver);

/// What is wanted of the program, if it is to be talked with.
pub(super) fn wants(args: &Args) -> Option<Wants> {
    let talks = (args.interactive || args.tty) && !args.detach;
    let wants = Wants {
        stdin: args.interactive,
        // Without a terminal the log is shown: it misses nothing, however fast the program writes.
        output: args.tty,
        terminal: args.tty,
        detach_keys: args.interactive && args.tty && !args.rm,
    };
    talks.then_some(wants)
}

/// Joins a container that was created; with a runtime that lets nobody attach before the start, nothing.
pub(super) async fn before_start(client: &Client, id: &str, wants: Wants) -> Option<Session> {
    let mut session = open(&attach::url(client, id, wants).await.ok()?).await.ok()?;
    session.1.is_joined().await.then_some(session)
}

/// Joins a container that runs, if nobody has joined it before.
pub(super) async fn after_start(
    client: &Client,
    id: &str,
    wants: Wants,
    joined: Option<Session>,
) -> Result<Session, Failure> {
    match joined {
        Some(session) => Ok(session),
        None => open(&attach::url(client, id, wants).await?).await,
    }
}

/// Talks until the program ends, or until the user leaves it. A signal that ends this process stops the program.
pub(super) async fn until_end(
    client: &Client,
    id: &str,
    session: Session,
    wants: Wants,
) -> Result<u8, Failure> {
    match talk(session, wants).await {
        Ok(Ended::Detached) => {
            eprintln!("\r\npintle: it runs on; pintle attach -i -t {id} joins it again");
            Ok(0)
        }
        Ok(ended) => attach::exit_code(client, id, ended).await,
        Err(Failure::Interrupted) => {
            stop_container(client, id, GRACE_SECS).await?;
            Err(Failure::Interrupted)
        }
        Err(failure) => Err(failure),
    }
}

/// Gives the program its input, if it is to have one, until a signal ends this process.
pub(super) async fn until_interrupted(session: Option<Session>, wants: Option<Wants>) {
    let fed = async {
        if let (Some(session), Some(wants)) = (session, wants)
            && let Err(Failure::Interrupted) = talk(session, wants).await
        {
            return;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = fed => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
