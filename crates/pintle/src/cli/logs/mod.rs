//! `pintle logs`: what a container has written, read from its CRI log file.

mod file;
mod line;

use super::client::Client;
use super::failure::Failure;
use super::human::parse_duration;
use super::inventory::Inventory;
use super::view;
use cri::runtime_v1::{ContainerState, ContainerStatus};
use file::LogFile;
use jiff::Timestamp;
use line::{Record, Stream};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How often a followed file is looked at. A poll, because it also works where the file system sends no events.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on with what is written from now on, until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Only what was written since a time (2026-11-20T10:00:00Z) or within a span (10m, 2h30m)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Container by name, POD/NAME, id or the beginning of an id
    container: String,
}

fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago = parse_duration(text)
        .map_err(|_| format!("{text:?} is neither a time (2026-11-20T10:00:00Z) nor a span (10m, 2h30m)"))?;
    Timestamp::now().checked_sub(ago).map_err(|_| format!("{text:?} is before all time"))
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let inventory = Inventory::load(client).await?;
    let container = inventory.container(&args.container)?;
    let status = client.container_status(&container.id, false).await?.status.unwrap_or_default();
    if status.log_path.is_empty() {
        return Err(Failure::Usage(format!(
            "the container {} has no log file: its pod was made without a log directory",
            args.container
        )));
    }
    let path = Path::new(&status.log_path);
    let cannot = |source| Failure::File { what: "reading the log", path: path.to_owned(), source };
    if has_not_started(&status, path) {
        return Ok(());
    }
    let mut file = LogFile::open(path).map_err(cannot)?;
    if let Some(count) = args.tail {
        file.seek_to_last(count).map_err(cannot)?;
    }
    let mut printer = Printer { since: args.since, timestamps: args.timestamps, ..Printer::default() };
    match args.follow {
        true => follow(client, &container.id, &mut file, &mut printer).await.map(|_| ()),
        false => printer.print_rest(&mut file).map(|_| ()),
    }
}

fn has_not_started(status: &ContainerStatus, path: &Path) -> bool {
    view::container_state(status.state) == "created" && !path.exists()
}

/// Prints the whole log of a container while it is written. Returns the container's status after its end.
pub(crate) async fn follow_to_end(
    client: &Client,
    container_id: &str,
    path: &Path,
) -> Result<ContainerStatus, Failure> {
    let cannot = |source| Failure::File { what: "reading the log", path: path.to_owned(), source };
    let mut file = LogFile::open(path).map_err(cannot)?;
    follow(client, container_id, &mut file, &mut Printer::default()).await
}

async fn follow(
    client: &Client,
    container_id: &str,
    file: &mut LogFile,
    printer: &mut Printer,
) -> Result<ContainerStatus, Failure> {
    // Asking the runtime costs more than looking at the file, so it is asked less often the longer nothing happens.
    let mut polls_until_status = 1_u32;
    let mut quiet = 0_u32;
    loop {
        match printer.print_rest(file)? {
            Printed::ReaderGone => return Ok(ContainerStatus::default()),
            Printed::Something => (quiet, polls_until_status) = (0, 1),
            Printed::Nothing => quiet += 1,
        }
        if quiet >= polls_until_status {
            let status = client.container_status(container_id, false).await?.status.unwrap_or_default();
            if status.state == ContainerState::ContainerExited as i32 {
                // What it wrote last may have come between the look at the file and the answer.
                printer.print_rest(file)?;
                return Ok(status);
            }
            quiet = 0;
            polls_until_status = (polls_until_status * 2).min(10);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a look at the file gave.
enum Printed {
    Nothing,
    Something,
    /// Standard output was closed.
    ReaderGone,
}

/// Writes records as the container wrote them: its stdout to ours, its stderr to ours.
#[derive(Default)]
struct Printer {
    since: Option<Timestamp>,
    timestamps: bool,
    /// Streams (stdout, stderr) whose line has begun and not ended.
    within_line: [bool; 2],
}

impl Printer {
    fn print_rest(&mut self, file: &mut LogFile) -> Result<Printed, Failure> {
        let mut printed = Printed::Nothing;
        let (mut out, mut err) =
            (io::BufWriter::new(io::stdout().lock()), io::BufWriter::new(io::stderr().lock()));
        let mut line = Vec::new();
        let mut print_all = || -> io::Result<()> {
            while file.next_line(&mut line)? {
                printed = Printed::Something;
                self.print(&line, &mut out, &mut err)?;
            }
            out.flush()?;
            err.flush()
        };
        match print_all() {
            Ok(()) => Ok(printed),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
            Err(error) => Err(Failure::Output(error)),
        }
    }

    fn print<'a>(&mut self, line: &[u8], out: &'a mut dyn Write, err: &'a mut dyn Write) -> io::Result<()> {
        // What is no record (a line that was cut when the disk was full) is shown as it is rather than hidden.
        let Some(record) = Record::parse(line) else {
            out.write_all(line)?;
            return out.write_all(b"\n");
        };
        if self.since.is_some_and(|since| record.timestamp().is_some_and(|time| time < since)) {
            return Ok(());
        }
        let within = &mut self.within_line[usize::from(record.stream == Stream::Stderr)];
        let to = if record.stream == Stream::Stdout { out } else { err };
        if self.timestamps && !*within {
            write!(to, "{} ", record.time)?;
        }
        *within = record.partial;
        to.write_all(record.text)?;
        if !record.partial {
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(printer: &mut Printer, lines: &[&str]) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for line in lines {
            printer.print(line.as_bytes(), &mut out, &mut err).unwrap();
        }
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn parts_are_joined_within_their_stream() {
        let lines = ["1 stdout P a", "2 stderr F x", "3 stdout F b"];
        assert_eq!(printed(&mut Printer::default(), &lines), ("ab\n".into(), "x\n".into()));
        let mut printer = Printer { timestamps: true, ..Printer::default() };
        assert_eq!(printed(&mut printer, &lines), ("1 ab\n".into(), "2 x\n".into()));
    }

    #[test]
    fn older_lines_are_left_out() {
        let since = Some("2026-01-02T00:00:00Z".parse().unwrap());
        let mut printer = Printer { since, ..Printer::default() };
        let lines = ["2026-01-01T00:00:00Z stdout F old", "2026-01-02T00:00:00Z stdout F new"];
        assert_eq!(printed(&mut printer, &lines).0, "new\n");
    }

    #[test]
    fn since_takes_times_and_spans() {
        assert_eq!(parse_since("2026-01-02T00:00:00Z").unwrap(), "2026-01-02T00:00:00Z".parse().unwrap());
        assert!(parse_since("10m").unwrap() < Timestamp::now());
        assert!(parse_since("yesterday-ish").is_err());
    }
}
