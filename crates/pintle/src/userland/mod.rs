//! The programs inside the demonstration's containers: this binary under other names, so that the demonstration needs no image from anywhere.

mod httpd;
pub(crate) mod wget;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The names under which this binary is one of these programs.
pub const APPLETS: &[&str] = &["httpd", "sleep", "ticker", "wget"];

/// A program's failure, in words.
type Outcome = Result<(), String>;

/// Runs the program that the first of `args` names, by its file name; `None` when it names none of them.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next()?;
    let name = Path::new(&program).file_name()?.to_str()?.to_owned();
    let applet = APPLETS.iter().find(|applet| **applet == name)?;
    let args: Vec<String> = args.collect();
    Some(match run(applet, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{applet}: {why}");
            ExitCode::FAILURE
        }
    })
}

fn run(applet: &str, args: &[String]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("starting the event loop: {error}"))?;
    runtime.block_on(async {
        // As process 1 of its namespace a program that handles no SIGTERM cannot be stopped by it (pid_namespaces(7)).
        let mut stop = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        tokio::select! {
            outcome = start(applet, args) => outcome,
            _ = stop.recv() => Ok(()),
        }
    })
}

async fn start(applet: &str, args: &[String]) -> Outcome {
    match (applet, args) {
        ("httpd", [port, directory]) => httpd::serve(port, Path::new(directory)).await,
        ("httpd", _) => Err("usage: httpd PORT DIRECTORY".into()),
        ("sleep", [seconds]) => sleep(seconds).await,
        ("sleep", _) => Err("usage: sleep SECONDS".into()),
        ("ticker", [text]) => tick(text).await,
        ("ticker", _) => Err("usage: ticker TEXT".into()),
        ("wget", [.., url]) => wget::fetch(url).await,
        (_, _) => Err("usage: wget [-qO-] URL".into()),
    }
}

async fn sleep(seconds: &str) -> Outcome {
    let seconds: f64 = seconds.parse().map_err(|_| format!("{seconds:?} is no number of seconds"))?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    tokio::time::sleep(time).await;
    Ok(())
}

/// Writes a numbered line every 200 ms.
async fn tick(text: &str) -> Outcome {
    for count in 1_u64.. {
        writeln!(io::stdout(), "{text} {count}").map_err(|error| error.to_string())?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_applets_choose_one() {
        assert!(main(["/usr/bin/pintle".into(), "sleep".into()]).is_none());
        assert!(main([]).is_none());
        assert!(main(["/bin/sleep".into(), "0".into()]).is_some());
    }

    #[tokio::test]
    async fn a_page_goes_from_httpd_to_wget() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("index.html"), "a page\n").unwrap();
        std::fs::write(directory.path().join("secret"), "x").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let root = directory.path().to_owned();
        let server = tokio::spawn(async move { httpd::serve_on(listener, &root).await });
        assert_eq!(wget::get(&format!("http://{address}/")).await.unwrap(), b"a page\n");
        for missing in ["nothing", "../etc/passwd", "secret/../../x"] {
            let failure = wget::get(&format!("http://{address}/{missing}")).await.unwrap_err();
            assert!(failure.contains("404"), "{missing}: {failure}");
        }
        server.abort();
    }
}
