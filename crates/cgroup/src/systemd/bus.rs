//! One connection to systemd's manager: calls, their answers, and the end of the jobs that they begin (org.freedesktop.systemd1(5)).

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dbus::{Call, HEAD_BYTES, Message, MessageKind, Reader, Writer};

use super::error::SystemdError;
use super::identity;
use super::names::Manager;

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// The signals that tell of the end of jobs.
const MATCH: &str = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Where systemd is found: through a bus, and, where there is none, on the socket of systemd's own tools.
fn places(manager: Manager) -> [(PathBuf, Through); 2] {
    let [bus, direct] = match manager {
        Manager::System => ["/run/dbus/system_bus_socket", "/run/systemd/private"].map(PathBuf::from),
        Manager::User(uid) => identity::sockets(uid),
    };
    [(bus, Through::Bus), (direct, Through::Direct)]
}

/// The longest line of an authentication.
const LONGEST_LINE: usize = 1024;

/// Jobs of one unit that are remembered until it is known which of them is meant.
const MOST_JOBS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    Bus,
    Direct,
}

/// A connection that is let in.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    through: Through,
    serial: u32,
    until: Instant,
    patience: Duration,
    /// A message, as far as it has come.
    buffer: Vec<u8>,
    /// Systemd's number, as in `252`; 0 until it is known.
    pub(super) version: u32,
}

/// An answer, or what happened, without the bytes that it was read from.
enum Heard {
    Answer { to: u32, sender: Option<String>, text: String },
    Refusal { to: u32, name: String, text: String },
    Removed(Removed),
    Nothing,
}

/// A job that has ended.
struct Removed {
    sender: Option<String>,
    job: String,
    unit: String,
    result: String,
}

impl Connection {
    /// Connects to the manager and says who we are; all that is done with the connection may take `patience`.
    pub(super) fn open(manager: Manager, patience: Duration) -> Result<Connection, SystemdError> {
        // A bus knows us by our number outside of any user namespace that it is not in itself.
        let uid = match manager {
            Manager::System => rustix::process::geteuid().as_raw(),
            Manager::User(uid) => uid,
        };
        let mut first = None;
        for (path, through) in places(manager) {
            match UnixStream::connect(&path) {
                Ok(stream) => return Connection::over(stream, through, uid, patience),
                Err(source) => {
                    first =
                        first.or(Some(SystemdError::Unreachable { path: path.display().to_string(), source }))
                }
            }
        }
        Err(first.unwrap_or(SystemdError::Absent))
    }

    /// Begins on a stream, where a bus or systemd itself is at the other end.
    pub(super) fn over(
        stream: UnixStream,
        through: Through,
        uid: u32,
        patience: Duration,
    ) -> Result<Connection, SystemdError> {
        let until = Instant::now() + patience;
        let mut connection =
            Connection { stream, through, serial: 0, until, patience, buffer: Vec::new(), version: 0 };
        connection.begin(uid)?;
        Ok(connection)
    }

    /// Everything that has to be said first is said in one go.
    fn begin(&mut self, uid: u32) -> Result<(), SystemdError> {
        let mut words = dbus::greeting(uid);
        if self.through == Through::Bus {
            let (object, interface) = ("/org/freedesktop/DBus", BUS);
            let hello = Call {
                destination: Some(BUS),
                path: object,
                interface,
                member: "Hello",
                signature: "",
                body: &[],
            };
            words.extend(hello.write(self.next_serial()));
            let mut rule = Writer::new();
            rule.text(MATCH);
            let rule = rule.finish();
            let matching = Call { member: "AddMatch", signature: "s", body: &rule, ..hello };
            words.extend(matching.write(self.next_serial()));
        }
        let subscribe = self.manager("Subscribe", "", &[]);
        words.extend(subscribe.write(self.next_serial()));
        let mut version = Writer::new();
        version.text(MANAGER);
        version.text("Version");
        let version = version.finish();
        let get =
            Call { interface: "org.freedesktop.DBus.Properties", ..self.manager("Get", "ss", &version) };
        let asked = self.next_serial();
        words.extend(get.write(asked));
        self.send(&words)?;
        let line = self.line()?;
        if !dbus::is_accepted(&line) {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(SystemdError::NotLetIn { line });
        }
        let (_, version) = self.answer(asked, "ask for the version of", "systemd", &mut Vec::new())?;
        let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        self.version = digits.parse().unwrap_or(0);
        Ok(())
    }

    fn manager<'a>(&self, member: &'a str, signature: &'a str, body: &'a [u8]) -> Call<'a> {
        let destination = (self.through == Through::Bus).then_some(SERVICE);
        Call { destination, path: OBJECT, interface: MANAGER, member, signature, body }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// Calls a method of the manager that answers with nothing.
    pub(super) fn call(
        &mut self,
        doing: &'static str,
        unit: &str,
        (member, signature): (&str, &str),
        body: &[u8],
    ) -> Result<(), SystemdError> {
        let serial = self.next_serial();
        let words = self.manager(member, signature, body).write(serial);
        self.send(&words)?;
        self.answer(serial, doing, unit, &mut Vec::new()).map(drop)
    }

    /// Calls a method of the manager that begins a job for `unit`, and waits for the job's end.
    pub(super) fn job(
        &mut self,
        doing: &'static str,
        unit: &str,
        (member, signature): (&str, &str),
        body: &[u8],
    ) -> Result<(), SystemdError> {
        let serial = self.next_serial();
        let words = self.manager(member, signature, body).write(serial);
        self.send(&words)?;
        // The job may have ended before its beginning is answered.
        let mut ended = Vec::new();
        let (sender, job) = self.answer(serial, doing, unit, &mut ended)?;
        let is_it = |removed: &Removed| removed.job == job && removed.sender == sender;
        let result = loop {
            if let Some(at) = ended.iter().position(is_it) {
                break ended.swap_remove(at).result;
            }
            ended.clear();
            if let Heard::Removed(removed) = self.hear(doing, unit)? {
                ended.push(removed);
            }
        };
        match result.as_str() {
            "done" => Ok(()),
            _ => Err(SystemdError::Job { doing, unit: unit.into(), result }),
        }
    }

    /// Waits for the answer to the message `serial`: who sent it, and the text that it begins with. Jobs of `unit` that end meanwhile are put
    /// aside.
    fn answer(
        &mut self,
        serial: u32,
        doing: &'static str,
        unit: &str,
        ended: &mut Vec<Removed>,
    ) -> Result<(Option<String>, String), SystemdError> {
        loop {
            match self.hear(doing, unit)? {
                Heard::Answer { to, sender, text } if to == serial => return Ok((sender, text)),
                // One of the first words was refused, without which nothing works.
                Heard::Refusal { to, name, text } if to <= serial => {
                    return Err(SystemdError::Refused { doing, unit: unit.into(), name, message: text });
                }
                Heard::Removed(removed) if removed.unit == unit && ended.len() < MOST_JOBS => {
                    ended.push(removed)
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, doing: &'static str, unit: &str) -> Result<Heard, SystemdError> {
        let silent = |error: SystemdError, patience| match error {
            SystemdError::Io { source }
                if matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                SystemdError::Silent { doing, unit: unit.into(), waited: patience }
            }
            other => other,
        };
        let patience = self.patience;
        let bytes = self.message().map_err(|error| silent(error, patience))?;
        Ok(understood(&Message::read(&bytes)?)?)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), SystemdError> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        Ok(self.stream.write_all(bytes)?)
    }

    /// What is left of the time; never nothing, which would mean for ever.
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Reads until there are at least `count` bytes.
    fn fill(&mut self, count: usize) -> Result<(), SystemdError> {
        let mut piece = [0; 4096];
        while self.buffer.len() < count {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(read) => self.buffer.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<Vec<u8>, SystemdError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(line);
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(dbus::BadMessage { what: "its authentication has no end", at: 0 }.into());
            }
            self.fill(self.buffer.len() + 1)?;
        }
    }

    fn message(&mut self) -> Result<Vec<u8>, SystemdError> {
        self.fill(HEAD_BYTES)?;
        let head = self.buffer.first_chunk().ok_or(io::Error::from(ErrorKind::UnexpectedEof))?;
        let length = dbus::length(head)?;
        self.fill(length)?;
        Ok(self.buffer.drain(..length).collect())
    }
}

fn understood(message: &Message<'_>) -> Result<Heard, dbus::BadMessage> {
    let sender = message.sender.map(str::to_owned);
    let mut body: Reader<'_> = message.body.clone();
    Ok(match message.kind {
        MessageKind::Return { to } => {
            let text = match message.signature {
                "o" | "s" => body.text()?.to_owned(),
                "v" if body.signature()? == "s" => body.text()?.to_owned(),
                _ => String::new(),
            };
            Heard::Answer { to, sender, text }
        }
        MessageKind::Error { to, name } => {
            let text =
                if message.signature.starts_with('s') { body.text()?.to_owned() } else { String::new() };
            Heard::Refusal { to, name: name.to_owned(), text }
        }
        MessageKind::Signal { interface: MANAGER, member: "JobRemoved" } if message.signature == "uoss" => {
            let (_number, job, unit, result) = (body.u32()?, body.text()?, body.text()?, body.text()?);
            let [job, unit, result] = [job, unit, result].map(str::to_owned);
            Heard::Removed(Removed { sender, job, unit, result })
        }
        MessageKind::Signal { .. } | MessageKind::Call | MessageKind::Other => Heard::Nothing,
    })
}

/// Whether systemd is the init of this machine (sd_booted(3)).
pub(super) fn is_init() -> bool {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statat(rustix::fs::CWD, Path::new("/run/systemd/system"), flags).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    const PATIENCE: Duration = Duration::from_millis(300);

    /// What comes of it when the other end says `words` and, unless it `stays`, hangs up.
    fn told(words: &[u8], stays: bool) -> SystemdError {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(words).unwrap();
        let kept = stays.then_some(theirs);
        let error = Connection::over(ours, Through::Direct, 0, PATIENCE).unwrap_err();
        drop(kept);
        error
    }

    #[test]
    fn whoever_is_no_systemd_is_told_of_in_time() {
        assert!(matches!(told(b"", false), SystemdError::Io { .. }));
        assert!(matches!(told(b"REJECTED EXTERNAL\r\n", true), SystemdError::NotLetIn { .. }));
        assert!(matches!(told(&[b'x'; 3000], true), SystemdError::Message(_)), "a line without an end");
        let begun = Instant::now();
        assert!(matches!(told(b"OK 1\r\n", true), SystemdError::Silent { .. }), "nothing more");
        assert!(matches!(told(b"", true), SystemdError::Io { .. }), "nothing at all");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(matches!(told(b"OK 1\r\nGET / HTTP/1.1\r\n\r\n", true), SystemdError::Message(_)));
        let huge = [&b"OK 1\r\nl\x02\0\x01"[..], &[0xff; 12]].concat();
        assert!(matches!(told(&huge, true), SystemdError::Message(_)));
    }

    struct Bus(Child, #[allow(dead_code, reason = "it is removed with this")] tempfile::TempDir);

    impl Drop for Bus {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The reference implementation takes what we say, and we understand what it says: that nobody of systemd's name is there.
    #[test]
    fn a_real_bus_understands_us() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        // Nobody but us is on it, and nobody is started by it.
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<busconfig><listen>unix:path={}</listen><policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--nofork", "--nopidfile"]).arg(format!("--config-file={}", config.display()));
        let Ok(child) = daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            println!("SKIPPED: there is no dbus-daemon");
            return;
        };
        let _bus = Bus(child, folder);
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let error = Connection::over(
            stream,
            Through::Bus,
            rustix::process::geteuid().as_raw(),
            Duration::from_secs(10),
        )
        .unwrap_err();
        assert!(error.is("org.freedesktop.DBus.Error.ServiceUnknown"), "{error}");
        assert!(error.to_string().contains(SERVICE), "{error}");
    }
}
