//! A backend whose containers are this host: commands are run with pipes or a pseudoterminal, ports are those of loopback.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use stream::{Attach, Backend, Boxed, Control, Exec, Exit, Process, Refusal, TerminalSize};
use tokio::sync::watch;

/// This host. A container `missing` is not there, one called `lost` ends without anybody knowing how.
#[derive(Default)]
pub(crate) struct Host {
    /// How many commands were started.
    pub(crate) started: AtomicUsize,
    /// Every size that a terminal was given.
    pub(crate) sizes: std::sync::Arc<Mutex<Vec<(u16, u16)>>>,
    /// The process groups of those that run.
    running: std::sync::Arc<Mutex<std::collections::BTreeSet<u32>>>,
}

struct Running {
    terminal: Option<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
    sizes: std::sync::Arc<Mutex<Vec<(u16, u16)>>>,
}

impl Control for Running {
    fn resize(&self, size: TerminalSize) {
        self.sizes.lock().unwrap().push((size.width, size.height));
        if let Some(terminal) = &self.terminal {
            let size = Winsize { ws_col: size.width, ws_row: size.height, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(terminal, size).unwrap();
        }
    }

    fn exit(&self) -> Boxed<'_, Exit> {
        let mut exit = self.exit.clone();
        Box::pin(async move {
            match exit.wait_for(Option::is_some).await {
                Ok(exit) => exit.clone().unwrap_or(Exit::Lost(String::new())),
                Err(_) => Exit::Lost("its watcher is gone".into()),
            }
        })
    }
}

/// What still runs ends with the test.
impl Drop for Host {
    fn drop(&mut self) {
        for group in self.running.lock().unwrap().iter() {
            let group = rustix::process::Pid::from_raw(i32::try_from(*group).unwrap()).unwrap();
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Host {
    fn run(&self, exec: &Exec) -> Result<Process, Refusal> {
        if exec.container == "missing" {
            return Err(Refusal::NotFound(format!("there is no container {}", exec.container)));
        }
        let mut command = Command::new(&exec.command[0]);
        command.args(&exec.command[1..]).process_group(0);
        let (stdin, stdout, stderr, terminal);
        let mut child;
        if exec.terminal {
            let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
            grantpt(&main).unwrap();
            unlockpt(&main).unwrap();
            let name = ptsname(&main, Vec::new()).unwrap();
            let other = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
            command.stdin(other.try_clone().unwrap()).stdout(other.try_clone().unwrap()).stderr(other);
            child = command.spawn().map_err(|error| Refusal::Failed(error.to_string()))?;
            stdin = exec.stdin.then(|| main.try_clone().unwrap());
            stdout = exec.stdout.then(|| main.try_clone().unwrap());
            stderr = None;
            terminal = Some(main);
        } else {
            let wanted = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
            command.stdin(wanted(exec.stdin)).stdout(wanted(exec.stdout)).stderr(wanted(exec.stderr));
            child = command.spawn().map_err(|error| Refusal::Failed(error.to_string()))?;
            stdin = child.stdin.take().map(OwnedFd::from);
            stdout = child.stdout.take().map(OwnedFd::from);
            stderr = child.stderr.take().map(OwnedFd::from);
            terminal = None;
        }
        drop(command);
        self.started.fetch_add(1, Ordering::Relaxed);
        let lost = exec.container == "lost";
        let (ended, exit) = watch::channel(None);
        let (running, group) = (self.running.clone(), child.id());
        running.lock().unwrap().insert(group);
        thread::spawn(move || {
            let status = child.wait().unwrap();
            running.lock().unwrap().remove(&group);
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap()) as u32;
            ended.send_replace(Some(if lost {
                Exit::Lost("the shim is gone".into())
            } else {
                Exit::Code(code)
            }));
        });
        let control = Box::new(Running { terminal, exit, sizes: self.sizes.clone() });
        Ok(Process { stdin, stdout, stderr, control })
    }
}

impl Backend for Host {
    fn exec(&self, exec: Exec) -> Boxed<'_, Result<Process, Refusal>> {
        Box::pin(async move { self.run(&exec) })
    }

    /// The main process of a container is the command that its id is.
    fn attach(&self, attach: Attach) -> Boxed<'_, Result<Process, Refusal>> {
        let Attach { container, terminal, stdin, stdout, stderr } = attach;
        let command = vec!["/bin/sh".into(), "-c".into(), container];
        let exec = Exec { container: "main".into(), command, terminal, stdin, stdout, stderr };
        Box::pin(async move { self.run(&exec) })
    }

    fn connect(&self, _pod: &str, port: u16) -> Boxed<'_, Result<TcpStream, Refusal>> {
        Box::pin(async move {
            let refused = |error: std::io::Error| Refusal::Failed(error.to_string());
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .and_then(|stream| stream.into_std())
                .map_err(refused)
        })
    }
}
