//! Executing the container's command, and saying in plain words why it could not be.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;
use rustix::io::Errno;
use sys::root::Root;

use crate::error::{Failure, Stage};

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LARGEST_PASSWD: u64 = 1 << 20;

/// A command ready to be executed in the current root and directory.
#[derive(Debug)]
pub(crate) struct Command {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    candidates: Vec<CString>,
    /// The name has no slash and was looked for in PATH.
    searched: bool,
}

impl Command {
    /// Reads args and env, with the variables of `raw` over those. To be called inside the container's root, where a missing HOME is
    /// looked up.
    pub(crate) fn of(process: &Process, raw: &[u8]) -> Result<Command, Failure> {
        let fail = |what: &str, cause: &str| Failure::new(Stage::Command, what, cause);
        let strings = |items: Vec<Vec<u8>>, what: &str| {
            items
                .into_iter()
                .map(|item| CString::new(item).map_err(|_| fail(what, "holds a NUL byte")))
                .collect::<Result<Vec<_>, _>>()
        };
        let bytes = |items: &[String]| items.iter().map(|item| item.clone().into_bytes()).collect::<Vec<_>>();
        let args = process.args().as_deref().unwrap_or_default();
        let program =
            args.first().ok_or_else(|| fail("process.args", "is empty: there is nothing to run"))?;
        if program.is_empty() {
            return Err(fail("process.args", "the name of the command is empty"));
        }
        let mut env = bytes(process.env().as_deref().unwrap_or_default());
        crate::environment::overlay(&mut env, raw);
        last_of_each(&mut env);
        let value = |key: &[u8]| env.iter().rev().find_map(|pair| pair.strip_prefix(key));
        let candidates = candidates(program, OsStr::from_bytes(value(b"PATH=").unwrap_or(DEFAULT_PATH)));
        if value(b"HOME=").is_none_or(<[u8]>::is_empty) {
            env.retain(|pair| !pair.starts_with(b"HOME="));
            let mut home = b"HOME=".to_vec();
            home.extend(home_of(process.user().uid()).into_vec());
            env.push(home);
        }
        let candidates = candidates
            .into_iter()
            .map(|path| CString::new(path.into_os_string().into_vec()))
            .collect::<Result<_, _>>()
            .map_err(|_| fail("PATH", "holds a NUL byte"))?;
        Ok(Command {
            arguments: strings(bytes(args), "process.args")?,
            environment: strings(env, "process.env")?,
            candidates,
            searched: !program.contains('/'),
        })
    }

    /// Becomes the command; returns only why that failed.
    pub(crate) fn execute(&self) -> Failure {
        self.first(|candidate| Err(sys::process::exec(candidate, &self.arguments, &self.environment)))
            .err()
            .unwrap_or_else(|| Failure::new(Stage::Command, "execve", "returned without an error"))
    }

    /// Whether this process, as the user that it is now, could execute the command: there is a file and it may be executed. What only
    /// the kernel can tell, such as a missing interpreter, is left to [`Command::execute`].
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.first(|candidate| {
            let stat = rustix::fs::stat(candidate.as_c_str())?;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
                return Err(Errno::ACCESS.into());
            }
            let (access, flags) = (rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS);
            Ok(rustix::fs::accessat(rustix::fs::CWD, candidate.as_c_str(), access, flags)?)
        })
    }

    /// Tries each place in which the command may be; the reason is that of the place that comes nearest.
    fn first(&self, mut attempt: impl FnMut(&CString) -> io::Result<()>) -> Result<(), Failure> {
        let mut denied = None;
        for candidate in &self.candidates {
            let Err(error) = attempt(candidate) else { return Ok(()) };
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                // A missing interpreter is told from a missing file by looking whether the file is there.
                Some(Errno::NOENT | Errno::NOTDIR) if self.searched && !exists(candidate) => {}
                Some(Errno::ACCESS) if self.searched => denied = denied.or(Some((candidate, error))),
                _ => return Err(explain(candidate, &error)),
            }
        }
        Err(match denied {
            Some((candidate, error)) => explain(candidate, &error),
            None => {
                let name =
                    self.arguments.first().map_or_else(String::new, |name| name.to_string_lossy().into());
                let places: Vec<_> = self.candidates.iter().map(|c| c.to_string_lossy()).collect();
                Failure {
                    errno: Some(Errno::NOENT.raw_os_error()),
                    ..Failure::new(Stage::Command, name, "executable file not found in $PATH")
                }
                .remedy(format!("looked for {}", places.join(", ")))
            }
        })
    }
}

/// Leaves of variables that are given more than once the last one.
fn last_of_each(environment: &mut Vec<Vec<u8>>) {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<Vec<u8>> = std::mem::take(environment);
    kept.reverse();
    kept.retain(|pair| seen.insert(pair.split(|byte| *byte == b'=').next().unwrap_or_default().to_vec()));
    kept.reverse();
    *environment = kept;
}

fn candidates(program: &str, path: &OsStr) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![program.into()];
    }
    // An empty element would mean the working directory; what lies there is the image's or the user's accident.
    path.as_bytes()
        .split(|byte| *byte == b':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(OsStr::from_bytes(folder)).join(program))
        .collect()
}

fn exists(path: &CString) -> bool {
    rustix::fs::stat(path.as_c_str()).is_ok()
}

/// The home directory of a user by the image's /etc/passwd, else `/`. The file is hostile: a bounded regular file, and only a clean
/// absolute path is taken from it.
fn home_of(uid: u32) -> OsString {
    let read = || -> io::Result<Option<OsString>> {
        let mut text = Vec::new();
        let file = Root::open(Path::new("/"))?.regular_file(Path::new("/etc/passwd"))?;
        file.take(LARGEST_PASSWD).read_to_end(&mut text)?;
        Ok(home_in(&text, uid))
    };
    read().ok().flatten().unwrap_or_else(|| "/".into())
}

fn home_in(passwd: &[u8], uid: u32) -> Option<OsString> {
    let uid = uid.to_string();
    let home = passwd.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        (fields.nth(2)? == uid.as_bytes()).then(|| fields.nth(2)).flatten()
    })?;
    let clean = home.first() == Some(&b'/') && !home.iter().any(u8::is_ascii_control);
    clean.then(|| OsStr::from_bytes(home).into())
}

/// Why `program` could not be executed, by looking at the file.
fn explain(program: &CString, error: &io::Error) -> Failure {
    let path = PathBuf::from(OsStr::from_bytes(program.as_bytes()));
    let name = path.display().to_string();
    let with = |cause: String| Failure {
        errno: error.raw_os_error(),
        ..Failure::new(Stage::Command, name.clone(), cause)
    };
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => match interpreter(&path) {
            Some(missing) => {
                with(format!("no such file or directory: the interpreter {missing} is missing in the image"))
                    .remedy("the command exists; what must load it does not")
            }
            None => with("no such file or directory in the image".into()),
        },
        Some(Errno::ACCESS) => with(denied(&path)),
        Some(Errno::NOEXEC) => with(foreign(&path)),
        Some(Errno::TOOBIG) => with("arguments and environment are too long".into()),
        Some(Errno::LOOP) => with("too many symbolic links".into()),
        _ => with(error.to_string()),
    }
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    Root::open(Path::new("/")).ok()?.regular_file(path).ok()?.take(4096).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The interpreter a script or a dynamic program asks for.
fn interpreter(path: &Path) -> Option<String> {
    let head = head(path)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next()?;
        let word = line.split(|b| b" \t\r".contains(b)).find(|word| !word.is_empty())?;
        let cause = if line.ends_with(b"\r") { " (the line ends with a carriage return)" } else { "" };
        return Some(format!("{}{cause}", String::from_utf8_lossy(word)));
    }
    elf_interpreter(&head)
}

/// `PT_INTERP` of a 64-bit ELF file whose program headers and interpreter lie in its first page, as linkers put them.
fn elf_interpreter(head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let u16_at = |at: usize| head.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]) as usize);
    let u64_at = |at: usize| {
        let bytes: [u8; 8] = head.get(at..at.checked_add(8)?)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (table, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    for index in 0..count.min(64) {
        let header = table.checked_add(index * size)?;
        if head.get(header..header.checked_add(4)?)? == 3_u32.to_le_bytes() {
            let (start, length) = (u64_at(header + 8)?, u64_at(header + 32)?);
            let text = head.get(start..start.checked_add(length)?)?;
            return Some(String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into());
        }
    }
    None
}

fn denied(path: &Path) -> String {
    let Ok(stat) = rustix::fs::stat(path) else {
        return "permission denied: a directory on its path is closed to this user".into();
    };
    let refused = |why: &str| format!("permission denied: {why}");
    let noexec =
        rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC));
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::Directory => refused("it is a directory"),
        rustix::fs::FileType::RegularFile if noexec => refused("its file system is mounted noexec"),
        rustix::fs::FileType::RegularFile if stat.st_mode & 0o111 == 0 => {
            refused(&format!("it is not executable (mode {:04o})", stat.st_mode & 0o7777))
        }
        rustix::fs::FileType::RegularFile => refused("it is closed to this user"),
        _ => refused("it is not a regular file"),
    }
}

fn foreign(path: &Path) -> String {
    const MACHINES: &[(u16, &str)] = &[
        (3, "x86"),
        (8, "MIPS"),
        (21, "ppc64"),
        (22, "s390"),
        (40, "arm"),
        (62, "x86-64"),
        (183, "aarch64"),
        (243, "RISC-V"),
    ];
    let head = head(path).unwrap_or_default();
    if head.is_empty() {
        return "is an empty file".into();
    }
    if !head.starts_with(b"\x7fELF") {
        return "is neither a program nor a script that starts with #!".into();
    }
    let machine = head.get(18..20).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    let name = MACHINES
        .iter()
        .find(|(number, _)| *number == machine)
        .map_or("another architecture", |(_, name)| name);
    format!("is a program for {name}, this machine is {}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_comes_only_from_a_clean_line() {
        let passwd =
            b"root:x:0:0::/root:/bin/sh\nbad:x:7:7::/a\x01b:/bin/sh\nrel:x:8:8::home:/\nx:x:00:0::/evil:/\n";
        assert_eq!(home_in(passwd, 0).unwrap(), "/root");
        assert_eq!(home_in(passwd, 7), None);
        assert_eq!(home_in(passwd, 8), None);
        assert_eq!(home_in(passwd, 9), None);
    }

    #[test]
    fn the_interpreter_of_a_dynamic_program_is_found_and_garbage_is_not() {
        let shell = std::fs::read("/bin/sh").unwrap();
        assert!(elf_interpreter(&shell[..4096]).unwrap().starts_with("/lib"));
        for length in 0..200 {
            let _ = elf_interpreter(&shell[..length]);
        }
        let mut broken = shell[..4096].to_vec();
        broken[32..40].fill(0xff);
        assert_eq!(elf_interpreter(&broken), None);
    }

    #[test]
    fn the_last_of_equal_variables_counts() {
        let mut environment: Vec<Vec<u8>> =
            ["A=1", "B=", "A=2", "C", "AB=3"].map(|pair| pair.as_bytes().to_vec()).into();
        last_of_each(&mut environment);
        assert_eq!(environment, ["B=", "A=2", "C", "AB=3"].map(|pair| pair.as_bytes().to_vec()));
    }

    #[test]
    fn only_names_without_a_slash_are_searched_for() {
        assert_eq!(
            candidates("sh", OsStr::new("/bin::/usr/bin")),
            [Path::new("/bin/sh"), Path::new("/usr/bin/sh")]
        );
        assert_eq!(candidates("./sh", OsStr::new("/bin")), [Path::new("./sh")]);
    }
}
