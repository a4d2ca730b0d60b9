//! Programs that know credentials: `docker-credential-NAME`, asked as Docker asks them (docker-credential-helpers, "protocol").

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::credentials::Credentials;

/// How long a program may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest answer. Tokens of clouds have some kilobytes.
const ANSWER_MAX: u64 = 256 << 10;
/// How many run at once, whatever is pulled.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the program for the credentials of `server`; none: it has none.
///
/// # Errors
/// In words, with the program's name. What it wrote is not quoted, since a secret may be in it.
pub(crate) async fn get(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    let path = find(name, &std::env::var_os("PATH").unwrap_or_default())?;
    ask(&path, server, DEADLINE).await
}

/// The program of a helper, by its name and this process's `PATH`. Only names are looked for, and only in folders that are named from the
/// root: neither a configuration's text nor the folder somebody stands in chooses another program.
fn find(name: &str, folders: &std::ffi::OsStr) -> Result<PathBuf, String> {
    let program = format!("docker-credential-{name}");
    if !is_name(name) {
        return Err(format!("{program:?} is not the name of a credential helper"));
    }
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(folders)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(&program))
        .find(is_program)
        .ok_or_else(|| format!("the credential helper {program} is in no folder of PATH"))
}

/// Whether a text can be the name of a helper.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

async fn ask(path: &Path, server: &str, deadline: Duration) -> Result<Option<Credentials>, String> {
    let _one = AT_ONCE.acquire().await;
    let program = path.display();
    let run = async {
        let mut child = Command::new(path)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|why| format!("the credential helper {program} cannot be started: {why}"))?;
        if let Some(mut input) = child.stdin.take() {
            // One that ends without reading says why in its answer.
            let _ = input.write_all(server.as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(output) = child.stdout.take() {
            output
                .take(ANSWER_MAX + 1)
                .read_to_end(&mut answer)
                .await
                .map_err(|why| format!("reading from the credential helper {program}: {why}"))?;
        }
        if answer.len() as u64 > ANSWER_MAX {
            return Err(format!("the credential helper {program} answered more than {ANSWER_MAX} bytes"));
        }
        let status = child
            .wait()
            .await
            .map_err(|why| format!("waiting for the credential helper {program}: {why}"))?;
        Ok((status, answer))
    };
    let Ok(ended) = tokio::time::timeout(deadline, run).await else {
        return Err(format!("the credential helper {program} took longer than {} s", deadline.as_secs_f32()));
    };
    let (status, answer) = ended?;
    if !status.success() {
        // These words are the protocol.
        if String::from_utf8_lossy(&answer).trim() == "credentials not found in native keychain" {
            return Ok(None);
        }
        return Err(format!("the credential helper {program} failed ({status})"));
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| {
        format!("the credential helper {program} did not answer with a user name and a secret")
    })?;
    Ok(Some(if answer.username == "<token>" {
        Credentials { identity_token: answer.secret, ..Credentials::default() }
    } else {
        Credentials::login(&answer.username, &answer.secret)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program in a folder of its own.
    fn helper(script: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    }

    async fn answer(script: &str) -> Result<Option<Credentials>, String> {
        let (_folder, path) = helper(script);
        ask(&path, "quay.io", Duration::from_secs(2)).await
    }

    #[tokio::test]
    async fn a_helper_is_asked_as_docker_asks_it() {
        let script = r#"[ "$1" = get ] || exit 3; read -r server; echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"for $server\"}""#;
        assert_eq!(answer(script).await, Ok(Some(Credentials::login("u", "for quay.io"))));
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        let wanted = Credentials { identity_token: "t".into(), ..Credentials::default() };
        assert_eq!(answer(token).await, Ok(Some(wanted)));
        assert_eq!(answer("echo credentials not found in native keychain; exit 1").await, Ok(None));
    }

    #[tokio::test]
    async fn a_bad_helper_is_told_without_what_it_wrote() {
        for (script, why) in [
            ("echo s3cret; exit 7", "failed (exit status: 7)"),
            ("echo s3cret", "did not answer"),
            ("exec sleep 60", "took longer than"),
            ("exec head -c 1000000 /dev/zero", "more than"),
        ] {
            let error = answer(script).await.unwrap_err();
            assert!(error.contains(why) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn only_names_lead_to_programs() {
        let (folder, path) = helper("exit 0");
        let folders = std::env::join_paths([Path::new("relative"), folder.path()]).unwrap();
        assert_eq!(find("test", &folders), Ok(path));
        assert!(find("absent", &folders).unwrap_err().contains("no folder of PATH"));
        for name in ["", "../../bin/sh", "a/b", "a b", "-x", ".", "a;b"] {
            assert!(find(name, &folders).unwrap_err().contains("not the name"), "{name:?}");
        }
    }
}
