//! Starts a shim from a sealed image in memory, so that nothing it runs beside can change the file it came from.

use super::{ShimClient, ShimError};
use rustix::fs::{MemfdFlags, SealFlags};
use shim::config::ShimConfig;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("the shim of pod {pod_id} cannot be started: {cause}")]
    Process { pod_id: String, cause: io::Error },
    /// It was started and could not set the pod up, or went away before it answered.
    #[error("the shim of pod {pod_id} is not ready: {cause}")]
    NotReady { pod_id: String, cause: ShimError },
}

/// The program of all shims: a sealed file in memory, whose pages they share.
#[derive(Debug)]
pub struct ShimBinary {
    image: OwnedFd,
    path: PathBuf,
}

impl ShimBinary {
    /// Seals `program`, the bytes of an executable that knows the command `shim`.
    ///
    /// # Errors
    /// There is no memory for it, or the kernel is older than 3.17.
    pub fn sealed(program: &[u8]) -> io::Result<ShimBinary> {
        ShimBinary::fill("pintle-shim", |file| file.write_all(program))
    }

    /// Seals the program that is running now.
    pub fn of_self() -> io::Result<ShimBinary> {
        let mut own = File::open("/proc/self/exe")?;
        ShimBinary::fill("pintle-shim", |file| io::copy(&mut own, file).map(drop))
    }

    fn fill(name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<ShimBinary> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels with vm.memfd_noexec want to be told that it will be executed; those before 6.3 do not know the flag.
        let image = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create(name, flags))?;
        let mut file = File::from(image);
        write(&mut file)?;
        let image = OwnedFd::from(file);
        rustix::fs::fcntl_add_seals(
            &image,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )?;
        let path = format!("/proc/self/fd/{}", image.as_raw_fd()).into();
        Ok(ShimBinary { image, path })
    }

    /// The sealed file.
    pub fn image(&self) -> &OwnedFd {
        &self.image
    }
}

impl ShimClient {
    /// Starts the shim of a pod and waits until its namespaces are set up. `messages` is a file for what the shim has to say.
    ///
    /// The child may be waited for or dropped: a dropped one goes on and is reaped by tokio.
    ///
    /// # Errors
    /// The process could not be started, or could not set the pod up; it has ended or is ending then.
    pub async fn spawn(
        binary: &ShimBinary,
        config: &ShimConfig,
        messages: File,
    ) -> Result<(ShimClient, tokio::process::Child), SpawnError> {
        let failed = |cause| SpawnError::Process { pod_id: config.pod_id.clone(), cause };
        let (child, ours) = launch(binary, config, messages).map_err(failed)?;
        let client = ShimClient::over(&config.pod_dir, ours).map_err(failed)?;
        match client.info().await {
            Ok(_) => Ok((client, child)),
            Err(cause) => Err(SpawnError::NotReady { pod_id: config.pod_id.clone(), cause }),
        }
    }
}

/// The configuration is the shim's standard input, the first connection its standard output: the standard library then needs no code
/// between fork and exec and can use vfork.
fn launch(
    binary: &ShimBinary,
    config: &ShimConfig,
    messages: File,
) -> io::Result<(tokio::process::Child, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut input = File::from(rustix::fs::memfd_create("shim-config", MemfdFlags::CLOEXEC)?);
    input.write_all(&serde_json::to_vec(config)?)?;
    input.rewind()?;
    let child = tokio::process::Command::new(&binary.path)
        .arg0("pintle-shim")
        .arg("shim")
        .env_clear()
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::from(messages))
        .spawn()?;
    Ok((child, ours))
}
