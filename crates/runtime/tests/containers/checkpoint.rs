//! Checkpoint and restore by the command line, with a real CRIU.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::bundle::{Bundle, bundle};

const COUNT: &str = "i=0; while true; do i=$((i+1)); echo $i; echo $i > /work/last; sleep 0.05; done";

/// CRIU, named by `PINTLE_TEST_CRIU` or in `PATH`, or why there is none.
fn criu() -> Result<PathBuf, String> {
    let name = std::env::var_os("PINTLE_TEST_CRIU").map_or_else(|| PathBuf::from("criu"), PathBuf::from);
    let path = runtime::locate_criu(&name);
    runtime::check_criu(&path).map(|()| path)
}

/// Runs a command whose container writes into a pipe, which somebody empties into the file `out`.
fn run_piped(bundle: &Bundle, words: &[&str], out: &str) -> (Child, Child) {
    let into = std::fs::File::create(bundle.path().join(out)).unwrap();
    let mut cat = std::process::Command::new("cat").stdin(Stdio::piped()).stdout(into).spawn().unwrap();
    // The container has standard error too: it is another pipe, whose reader nobody has to wait for.
    let errors = std::fs::File::create(bundle.path().join("errors")).unwrap();
    let mut other = std::process::Command::new("cat").stdin(Stdio::piped()).stdout(errors).spawn().unwrap();
    let mut command = bundle.command(words);
    command.stdout(cat.stdin.take().unwrap()).stderr(other.stdin.take().unwrap());
    let done = command.status().unwrap();
    drop(command);
    if !done.success() {
        other.wait().unwrap();
        panic!("{}", std::fs::read_to_string(bundle.path().join("errors")).unwrap());
    }
    (cat, other)
}

fn wait((mut out, mut errors): (Child, Child)) {
    out.wait().unwrap();
    errors.wait().unwrap();
}

fn counted(bundle: &Bundle, out: &str, more_than: i64) -> Vec<i64> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(bundle.path().join(out)).unwrap();
        let numbers: Vec<i64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if numbers.last().is_some_and(|last| *last > more_than) {
            return numbers;
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_container_is_saved_and_counts_on_in_another() {
    let criu = match criu() {
        Ok(criu) => criu.display().to_string(),
        Err(why) => {
            println!("SKIPPED: {why}");
            return;
        }
    };
    let mut bundle = bundle!();
    let volume = bundle.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    bundle.mount(
        serde_json::json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]}),
    );
    bundle.shell(COUNT).save();
    let id = bundle.id.clone();
    let images = bundle.path().join("images");
    let image_path = format!("--image-path={}", images.display());
    let first = run_piped(&bundle, &["run", "--detach", &id], "first");
    counted(&bundle, "first", 3);
    let checkpoint = ["--criu", &criu, "checkpoint", &image_path, "--leave-running", &id];
    bundle.oci(&checkpoint).ok();
    assert_eq!(bundle.state()["status"], "running");
    let at = *counted(&bundle, "first", 0).last().unwrap();
    counted(&bundle, "first", at + 3);
    // One that is paused stays so.
    bundle.oci(&["pause", &id]).ok();
    std::fs::remove_dir_all(&images).unwrap();
    bundle.oci(&checkpoint).ok();
    assert_eq!(bundle.state()["status"], "paused");
    bundle.oci(&["resume", &id]).ok();
    // And now it ends with it.
    std::fs::remove_dir_all(&images).unwrap();
    bundle.oci(&["--criu", &criu, "checkpoint", &image_path, &id]).ok();
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
    wait(first);
    let at = *counted(&bundle, "first", 0).last().unwrap();
    let second = run_piped(&bundle, &["--criu", &criu, "restore", "--detach", &image_path, &id], "second");
    let numbers = counted(&bundle, "second", at + 3);
    assert!(numbers[0] >= at && numbers[0] <= at + 2, "{at} {numbers:?}");
    assert_eq!(bundle.exec(&["cat", "/proc/1/comm"]).ok(), "sh\n");
    bundle.oci(&["delete", "--force", &id]).ok();
    wait(second);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
    let refused = bundle.oci(&["--criu", "/absent/criu", "restore", &image_path, &id]).failed();
    assert!(refused.contains("/absent/criu"), "{refused}");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}
