//! Measures create, start and delete of containers in one process, as a shim would call them: a child of a fork creates.
//!
//! `bench BUNDLE STATE_ROOT COUNT [OVERLAY]`; with OVERLAY the root file system is a detached overlay over the bundle's rootfs.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use sys::mount::Parameter;
use sys::process::{Cloned, clone_process, exit_now};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, bundle, states, count, ..] = &words[..] else {
        panic!("bench BUNDLE STATE_ROOT COUNT [OVERLAY]")
    };
    let overlay = words.len() > 4;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    runtime::warm_up().unwrap();
    let config = std::fs::read(Path::new(bundle).join("config.json")).unwrap();
    let mut times: [Vec<Duration>; 4] = Default::default();
    for number in 0..count.parse::<u32>().unwrap() {
        let id = format!("bench-{}-{number}", std::process::id());
        let rootfs = overlay.then(|| overlay_of(bundle));
        let begun = Instant::now();
        create(&id, bundle, states, &config, rootfs);
        let created = begun.elapsed();
        if number % 2 == 0 {
            runtime::start(Path::new(states), &id).unwrap()
        } else {
            start_by_poll(states, &id)
        }
        let started = begun.elapsed();
        while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
        let ended = Instant::now();
        runtime::delete(Path::new(states), &id, true).unwrap();
        for (list, time) in times.iter_mut().zip([created, started - created, started, ended.elapsed()]) {
            list.push(time);
        }
    }
    for (name, mut list) in ["create", "start", "create+start", "delete"].into_iter().zip(times) {
        list.sort();
        println!(
            "{name:13} min {:>6} median {:>6} µs",
            list[0].as_micros(),
            list[list.len() / 2].as_micros()
        );
    }
}

/// As a shim starts: it waits in its own poll loop.
fn start_by_poll(states: &str, id: &str) {
    let mut attempt = runtime::begin_start(Path::new(states), id).unwrap();
    let outcome = loop {
        if let Some(outcome) = attempt.try_finish() {
            break outcome;
        }
        let mut set = [PollFd::new(&attempt, PollFlags::IN)];
        poll(&mut set, None).unwrap();
    };
    outcome.unwrap();
}

fn create(id: &str, bundle: &str, states: &str, config: &[u8], rootfs: Option<OwnedFd>) {
    match clone_process(0, None).unwrap() {
        Cloned::Parent(child) => assert_eq!(child.wait().unwrap(), 0),
        Cloned::Child => {
            let created = runtime::create(runtime::CreateRequest {
                id,
                bundle: Path::new(bundle),
                spec: Some(serde_json::from_slice(config).unwrap()),
                state_root: Path::new(states),
                rootfs,
                volumes: Vec::new(),
                console: None,
                pid_file: None,
                preserve_fds: 0,
                systemd_cgroup: false,
                no_pivot: false,
                keyring: true,
                cgroup_optional: false,
                bind_devices: false,
                check_command: false,
            });
            match created {
                Ok(_) => exit_now(0),
                Err(error) => {
                    eprintln!("{error}");
                    exit_now(1)
                }
            }
        }
    }
}

/// A detached overlay with the bundle's rootfs below.
fn overlay_of(bundle: &str) -> OwnedFd {
    let path = |name: &str| {
        let path = format!("{bundle}/{name}");
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let (lower, upper, work) = (path("rootfs"), path("upper"), path("work"));
    let parameters = [
        Parameter::Value("lowerdir", &lower),
        Parameter::Value("upperdir", &upper),
        Parameter::Value("workdir", &work),
        Parameter::Flag("volatile"),
    ];
    let _ = std::fs::remove_dir_all(format!("{work}/work/incompat"));
    sys::mount::new_filesystem("overlay", &parameters, 0).unwrap()
}
