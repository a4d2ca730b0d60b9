//! Programs of the administrator that decide about images, called as containerd calls its image verifiers (its docs/image-verification.md).

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use model::digest::Digest;
use sys::program::{self, Bound, End};

/// The media type of what a verifier reads from its standard input.
const DESCRIPTOR: &str = "application/vnd.oci.descriptor.v1+json";
/// How much of each output is kept; the rest is read and let go.
const OUTPUT_BYTES: usize = 32 << 10;
/// More programs than anybody means to run for every image.
const VERIFIERS_MAX: usize = 64;

/// A folder of verifiers. All files in it are called, in the order of their names, until one refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifiers {
    pub folder: PathBuf,
    /// For each of them.
    pub timeout: Duration,
}

/// What verifiers are asked about.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The whole reference that is to be pulled.
    pub name: &'a str,
    /// Of what the reference leads to: a manifest or an index.
    pub digest: &'a Digest,
    pub media_type: &'a str,
    /// Bytes.
    pub size: u64,
}

/// Why verifiers do not admit an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    #[error("image.verifier_dir {folder}: {why}", folder = .folder.display())]
    Folder { folder: PathBuf, why: String },
    #[error("the image verifier {program} rejected the image ({status}): {reason}", program = .program.display())]
    Rejected { program: PathBuf, status: String, reason: String },
    #[error("the image verifier {program} could not be run: {why}", program = .program.display())]
    Run { program: PathBuf, why: String },
    #[error(
        "the image verifier {program} was killed because it took more than {after_secs} s (image.verifier_timeout_secs)",
        program = .program.display()
    )]
    TimedOut { program: PathBuf, after_secs: u64 },
}

impl Verifiers {
    /// Asks every verifier. Blocks until all have answered, or one has refused.
    ///
    /// Other than in containerd, a folder that is absent or empty refuses: whoever sets it wants images verified.
    ///
    /// # Errors
    /// [`VerifierError`], with the reason that the verifier printed.
    pub fn ask(&self, question: &Question<'_>) -> Result<(), VerifierError> {
        for program in self.programs()? {
            let run =
                |error: io::Error| VerifierError::Run { program: program.clone(), why: error.to_string() };
            let child = spawn(&program, question).map_err(run)?;
            let kept = Bound::Head(OUTPUT_BYTES);
            let finished = program::finish(child, self.timeout, kept, kept).map_err(run)?;
            let reason = printable(&finished.stdout);
            match finished.end {
                End::TimedOut | End::TooMuchOutput => {
                    return Err(VerifierError::TimedOut { program, after_secs: self.timeout.as_secs() });
                }
                End::Exited(status) if status.success() => {}
                End::Exited(status) => {
                    let reason = match (reason.is_empty(), printable(&finished.stderr)) {
                        (false, _) => reason,
                        (true, stderr) if stderr.is_empty() => "it gave no reason".to_owned(),
                        (true, stderr) => stderr,
                    };
                    return Err(VerifierError::Rejected { program, status: status.to_string(), reason });
                }
            }
        }
        Ok(())
    }

    fn programs(&self) -> Result<Vec<PathBuf>, VerifierError> {
        let fail = |why: String| VerifierError::Folder { folder: self.folder.clone(), why };
        let entries = std::fs::read_dir(&self.folder).map_err(|error| fail(error.to_string()))?;
        let mut programs = Vec::new();
        for entry in entries {
            programs.push(entry.map_err(|error| fail(error.to_string()))?.path());
        }
        programs.sort();
        match programs.len() {
            0 => Err(fail("there is no verifier in it".to_owned())),
            many if many > VERIFIERS_MAX => {
                Err(fail(format!("there are more than {VERIFIERS_MAX} files in it")))
            }
            _ => match programs.iter().find(|program| !is_executable(program)) {
                Some(odd) => Err(fail(format!("{} is no executable file", odd.display()))),
                None => Ok(programs),
            },
        }
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn spawn(path: &Path, question: &Question<'_>) -> io::Result<Child> {
    let Question { name, digest, media_type, size } = question;
    let descriptor = serde_json::json!({"mediaType": media_type, "digest": digest.as_str(), "size": size});
    let input = program::input("image-descriptor", format!("{descriptor}\n").as_bytes())?;
    Command::new(path)
        .args(["-name", name, "-digest", digest.as_str(), "-stdin-media-type", DESCRIPTOR])
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .process_group(0)
        .spawn()
}

/// As much of an output as a message may quote.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(1024).map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, script: &str) {
            let path = self.0.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }

        fn ask(&self, timeout_ms: u64) -> Result<(), VerifierError> {
            let digest = Digest::sha256([7; 32]);
            let question =
                Question { name: "r.io/a:1", digest: &digest, media_type: "application/x", size: 12 };
            let verifiers =
                Verifiers { folder: self.0.path().into(), timeout: Duration::from_millis(timeout_ms) };
            // Another test's fork may hold the script open for writing for a moment.
            loop {
                match verifiers.ask(&question) {
                    Err(VerifierError::Run { why, .. }) if why.contains("Text file busy") => {}
                    done => return done,
                }
            }
        }
    }

    #[test]
    fn a_verifier_gets_what_containerds_would() {
        let folder = Folder::new();
        let saw = folder.0.path().with_extension("saw");
        folder.write("a", &format!("{{ echo \"$@\"; cat; }} > {}", saw.display()));
        folder.ask(5000).unwrap();
        let saw_text = std::fs::read_to_string(&saw).unwrap();
        std::fs::remove_file(saw).unwrap();
        let hex = "07".repeat(32);
        let args = format!("-name r.io/a:1 -digest sha256:{hex} -stdin-media-type {DESCRIPTOR}");
        let (first, second) = saw_text.split_once('\n').unwrap();
        assert_eq!(first, args);
        let descriptor: serde_json::Value = serde_json::from_str(second).unwrap();
        assert_eq!(
            descriptor,
            serde_json::json!({"mediaType": "application/x", "digest": format!("sha256:{hex}"), "size": 12})
        );
    }

    #[test]
    fn one_that_refuses_is_enough_and_says_why() {
        let folder = Folder::new();
        folder.write("10-yes", "echo fine");
        folder.write("20-no", "echo 'not on the list'; exit 3");
        folder.write("30-never", &format!("touch {}/called", folder.0.path().display()));
        let error = folder.ask(5000).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("20-no") && text.contains("exit status: 3") && text.ends_with("not on the list"),
            "{text}"
        );
        assert!(!folder.0.path().join("called").exists());
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let folder = Folder::new();
        let child = folder.0.path().with_extension("child");
        folder.write("a", &format!("sleep 600 & echo $! > {}; wait", child.display()));
        assert!(matches!(folder.ask(700).unwrap_err(), VerifierError::TimedOut { .. }));
        let pid: i32 = std::fs::read_to_string(&child).unwrap().trim().parse().unwrap();
        std::fs::remove_file(child).unwrap();
        let is_alive = || {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
        };
        let start = Instant::now();
        while is_alive() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!is_alive());
    }

    #[test]
    fn output_without_end_is_bounded_and_a_daemon_left_behind_does_not_hold_it_up() {
        let folder = Folder::new();
        folder.write("a", "head -c 3000000 /dev/zero | tr '\\0' x; sleep 600 & exit 1");
        let start = Instant::now();
        match folder.ask(9000).unwrap_err() {
            VerifierError::Rejected { reason, .. } => assert_eq!(reason, "x".repeat(1024)),
            other => panic!("{other}"),
        }
        assert!(start.elapsed() < Duration::from_secs(8));
    }

    #[test]
    fn a_folder_without_verifiers_admits_nothing() {
        let folder = Folder::new();
        assert!(folder.ask(1000).unwrap_err().to_string().contains("no verifier"));
        std::fs::write(folder.0.path().join("README"), "").unwrap();
        assert!(folder.ask(1000).unwrap_err().to_string().contains("README is no executable file"));
        std::fs::remove_dir_all(folder.0.path()).unwrap();
        assert!(matches!(folder.ask(1000).unwrap_err(), VerifierError::Folder { .. }));
    }
}
