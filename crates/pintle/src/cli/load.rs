//! `pintle load`: images from an archive or a folder, without a registry.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::output::write_out;
use super::tag;
use cri::node_v1::{LoadImagesRequest, LoadImagesResponse, LoadOptions};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

/// Bytes of one message.
const PIECE: usize = 256 << 10;
/// Messages that may wait.
const AHEAD: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The archive, or the folder of an OCI layout; without it standard input
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Which image of several is taken, such as linux/arm64; without it the one for the daemon's machine
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// The name that the one image gets, whatever the archive says
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    if args.input.is_none() && io::stdin().is_terminal() {
        let why = "there is no archive on a terminal: use -i PATH, or a pipe";
        return Err(Failure::Usage(why.into()));
    }
    let options =
        LoadOptions { platform: args.platform.unwrap_or_default(), name: args.name.unwrap_or_default() };
    let (send, receive) = mpsc::channel(AHEAD);
    let first = LoadImagesRequest { options: Some(options), data: Vec::new() };
    let input = args.input;
    let reading = std::thread::spawn(move || feed(input, first, &send));
    let answer = client.own_images().load_images(ReceiverStream::new(receive)).await;
    // The daemon's answer to half an archive says less than why there is only a half. While it waits for more, nobody joins.
    if reading.is_finished()
        && let Ok(Err(failure)) = reading.join()
    {
        return Err(failure);
    }
    let answer = answer.explain(|| "loading images".into())?;
    write_out(&text(&answer))
}

/// Reads the archive on a thread of its own, since a pipe may make it wait.
fn feed(
    input: Option<PathBuf>,
    first: LoadImagesRequest,
    send: &mpsc::Sender<LoadImagesRequest>,
) -> Result<(), Failure> {
    if send.blocking_send(first).is_err() {
        return Ok(());
    }
    let mut sink = Sink { send, piece: Vec::with_capacity(PIECE), gone: false };
    let done = match &input {
        None => copy(io::stdin().lock(), &mut sink).map_err(Failure::Input),
        Some(path) => {
            let failed = |source| Failure::File { what: "reading the archive", path: path.clone(), source };
            match path.is_dir() {
                true => image::read_layout(path, &mut sink).map_err(failed),
                false => File::open(path).and_then(|file| copy(file, &mut sink)).map_err(failed),
            }
        }
    };
    // A daemon that reads no more has an answer.
    if sink.gone { Ok(()) } else { done }
}

fn copy(mut from: impl Read, sink: &mut Sink<'_>) -> io::Result<()> {
    io::copy(&mut from, sink)?;
    sink.flush()
}

struct Sink<'a> {
    send: &'a mpsc::Sender<LoadImagesRequest>,
    piece: Vec<u8>,
    gone: bool,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send.blocking_send(LoadImagesRequest { options: None, data }).map_err(|_| {
            self.gone = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

/// Names, one on a line, and what each led to before; the id of an image without a name.
fn text(answer: &LoadImagesResponse) -> String {
    let mut text = String::new();
    for image in &answer.images {
        let tags = image.names.iter().filter(|named| !named.name.contains('@'));
        let lines: String = tags.map(tag::line).collect();
        match lines.is_empty() {
            false => text.push_str(&lines),
            true => {
                text.push_str(&format!("{}\n", image.names.first().map_or(&image.id, |named| &named.name)))
            }
        }
    }
    text
}
