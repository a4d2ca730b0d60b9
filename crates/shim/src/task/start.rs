//! `start`: finds the server of the task's group or leaves one behind, and prints its address.

use super::flags::Flags;
use super::{bundle, launch, options};
use prost::Message;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use task::Any;
use task::bootstrap::{BootstrapParams, BootstrapResult, LOG_LEVEL_DEBUG};
use task::options::Options;

/// Where the sockets of shims lie if containerd names no folder.
const SOCKETS: &str = "/run/containerd/s";

/// What containerd writes to us is not longer.
const LONGEST: u64 = 10 << 20;

/// In which form containerd wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// 2.3 and later: protobuf.
    Bootstrap,
    /// 1.7 to 2.2: JSON.
    Json,
    /// Before: the bare address.
    Bare,
}

/// What is known at a start.
struct Wish {
    answer: Answer,
    socket_dir: PathBuf,
    /// Where events go, if containerd says it here and not in the environment.
    events: Option<String>,
    debug: bool,
    options: Option<Options>,
}

/// The bundle is the working directory.
pub(super) fn start(flags: &Flags, server: Option<&[u8]>) -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().lock().take(LONGEST).read_to_end(&mut input)?;
    let versioned = std::env::var_os("MAX_SHIM_VERSION").is_some();
    let wish = wish(flags, &input, versioned);
    let group = bundle::group_of(Path::new("."), &flags.id)?;
    let name = socket_name(&[&flags.address, &flags.namespace, &group]);
    let path = wish.socket_dir.join(&name);
    let address = format!("unix://{}", path.display());
    if let Some(listener) = listen(&wish.socket_dir, OsStr::new(&name))? {
        // containerd 1.6 looks for it before it has the answer.
        let left = serve(flags, &wish, server, &group, &path, &listener);
        left.inspect_err(|_| {
            let _ = rustix::fs::unlink(&path);
        })?;
    }
    sys::file::write_atomic(
        Path::new(bundle::ADDRESS),
        address.as_bytes(),
        0o644,
        sys::file::Durability::Process,
    )?;
    io::stdout().write_all(&encode(wish.answer, address))
}

/// A name for the socket of a group, as short for long ids: FNV-1a of 128 bits.
fn socket_name(parts: &[&str]) -> String {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("pintle-{hash:032x}")
}

fn wish(flags: &Flags, input: &[u8], versioned: bool) -> Wish {
    // Options of older versions could be taken for parameters: those repeat what the flags say.
    let parameters = BootstrapParams::decode(input)
        .ok()
        .filter(|parameters| parameters.instance_id == flags.id && parameters.namespace == flags.namespace);
    // What is wrong with them is told by `Create`.
    let known = |any: &Any| options::read(Some(any)).ok();
    match parameters {
        Some(parameters) => Wish {
            answer: Answer::Bootstrap,
            socket_dir: parameters
                .socket_dir
                .filter(|folder| !folder.is_empty())
                .map_or(SOCKETS.into(), PathBuf::from),
            events: Some(parameters.containerd_ttrpc_address).filter(|address| !address.is_empty()),
            debug: flags.debug || parameters.log_level <= LOG_LEVEL_DEBUG,
            options: parameters.extensions.iter().filter_map(|one| one.value.as_ref()).find_map(known),
        },
        None => Wish {
            answer: if versioned { Answer::Json } else { Answer::Bare },
            socket_dir: SOCKETS.into(),
            events: None,
            debug: flags.debug,
            options: Any::decode(input).ok().as_ref().and_then(known),
        },
    }
}

fn encode(answer: Answer, address: String) -> Vec<u8> {
    match answer {
        Answer::Bootstrap => {
            BootstrapResult { version: 3, address, protocol: "ttrpc".into(), ..Default::default() }
                .encode_to_vec()
        }
        Answer::Json => {
            let answer = serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"});
            answer.to_string().into_bytes()
        }
        Answer::Bare => address.into_bytes(),
    }
}

/// A socket for a new server, or none: one serves this address already. What a dead one left is replaced.
fn listen(folder: &Path, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    use rustix::fs::{Mode, OFlags};
    let at = |cause: io::Error| {
        io::Error::new(cause.kind(), format!("the socket in {}: {cause}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(at)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(folder, flags, Mode::empty()).map_err(|cause| at(cause.into()))?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listened = sys::socket::listen_in(directory.as_fd(), name, 128).map(Some).or_else(|cause| {
        if cause.kind() != io::ErrorKind::AddrInUse {
            return Err(cause);
        }
        if sys::socket::connect_in(directory.as_fd(), name).is_ok() {
            return Ok(None);
        }
        rustix::fs::unlinkat(&directory, name, rustix::fs::AtFlags::empty())?;
        sys::socket::listen_in(directory.as_fd(), name, 128).map(Some)
    });
    rustix::process::umask(before);
    listened.map_err(at)
}

fn serve(
    flags: &Flags,
    wish: &Wish,
    server: Option<&[u8]>,
    group: &str,
    path: &Path,
    listener: &OwnedFd,
) -> io::Result<()> {
    let program = launch::open(server)?;
    let mut arguments = vec!["-namespace", &*flags.namespace, "-id", group, "-address", &*flags.address];
    let path = path.display().to_string();
    arguments.extend(["-socket", &path]);
    if let Some(events) = &wish.events {
        arguments.extend(["-events", events]);
    }
    if wish.debug {
        arguments.push("-debug");
    }
    let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
    let child = launch::launch(&program, &arguments, listener)?;
    let placed = place(child.pid, wish.options.as_ref());
    placed.inspect_err(|_| child.kill_and_reap())
}

/// Moves the server where it belongs: into its control group, and a little nearer to the end than containerd if memory runs out.
fn place(pid: i32, options: Option<&Options>) -> io::Result<()> {
    if let Some(group) = options.map(|options| &options.shim_cgroup).filter(|group| !group.is_empty()) {
        let host = cgroup::Host::detect().map_err(io::Error::other)?;
        let group = host.open(group.trim_start_matches('/')).map_err(io::Error::other)?;
        group.add_process(pid).map_err(io::Error::other)?;
    }
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).unwrap_or_default();
    if let Ok(score) = score.trim().parse::<i32>() {
        // Lowering it needs a right that a shim can live without.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).min(1000).to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use task::bootstrap::Extension;
    use task::pack;

    fn flags() -> Flags {
        Flags::parse(["-namespace", "n", "-id", "c", "-address", "/a", "start"].iter().map(Into::into))
            .unwrap()
    }

    #[test]
    fn each_containerd_gets_the_answer_that_it_understands() {
        let options = Options { shim_cgroup: "/s".into(), ..Default::default() };
        let parameters = BootstrapParams {
            instance_id: "c".into(),
            namespace: "n".into(),
            log_level: -8,
            socket_dir: Some("/x".into()),
            extensions: vec![Extension { value: Some(pack(&options)) }],
            ..Default::default()
        };
        let new = wish(&flags(), &parameters.encode_to_vec(), true);
        assert_eq!((new.answer, new.debug, &*new.socket_dir), (Answer::Bootstrap, true, Path::new("/x")));
        assert_eq!(new.options, Some(options.clone()));
        let older = wish(&flags(), &pack(&options).encode_to_vec(), true);
        assert_eq!(
            (older.answer, older.debug, &*older.socket_dir),
            (Answer::Json, false, Path::new(SOCKETS))
        );
        assert_eq!(older.options, Some(options));
        assert_eq!(wish(&flags(), b"", false).answer, Answer::Bare);
        let other = BootstrapParams { instance_id: "d".into(), ..parameters };
        assert_eq!(wish(&flags(), &other.encode_to_vec(), true).answer, Answer::Json);
        assert_eq!(encode(Answer::Bare, "unix:///x".into()), b"unix:///x");
        let json: serde_json::Value =
            serde_json::from_slice(&encode(Answer::Json, "unix:///x".into())).unwrap();
        assert_eq!((json["version"].as_i64(), json["address"].as_str()), (Some(2), Some("unix:///x")));
    }

    #[test]
    fn groups_of_different_containerds_and_namespaces_have_different_sockets() {
        let names =
            [["a", "b", "c"], ["a", "bc", ""], ["ab", "", "c"], ["a", "b", "d"]].map(|p| socket_name(&p));
        assert!(names.iter().all(|name| name.len() == 39));
        let mut unique = names.to_vec();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn a_living_server_is_found_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let first = listen(folder.path(), OsStr::new("s")).unwrap();
        assert!(first.is_some());
        assert!(listen(folder.path(), OsStr::new("s")).unwrap().is_none());
        drop(first);
        assert!(listen(folder.path(), OsStr::new("s")).unwrap().is_some());
    }
}
