//! The stages themselves, each by CRI as the kubelet or a person would do it.

use super::daemon::Daemon;
use super::image::{self, PAGE, PORT};
use super::scratch::Scratch;
use super::stages::{Stage, say};
use crate::cli::client::Client;
use crate::cli::exec::exec_sync;
use crate::cli::failure::{Explain, Failure};
use crate::cli::inventory::Inventory;
use crate::cli::output::{short_id, write_out};
use crate::cli::pull::pull;
use crate::cli::pull_progress::Progress;
use crate::cli::stop::stop_pod;
use crate::cli::{stats, view};
use crate::userland::wget;
use cri::runtime_v1 as cri_v1;
use registry::{Listening, Registry};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Seconds a container has to end by itself.
const GRACE_SECS: i64 = 5;

/// What has been made so far. It outlives an interrupted stage, so that everything can be taken away.
pub(super) struct Story {
    pub(super) scratch: Scratch,
    pub(super) daemon: Option<Daemon>,
    client: Option<Client>,
    registry: Option<Listening>,
    /// Name of the image in the registry, and the id it was pulled as.
    image: String,
    image_id: String,
    /// What `--image` named, and the id it was pulled as.
    yours: Option<(String, String)>,
    pod: Option<(String, cri_v1::PodSandboxConfig)>,
    /// Names and ids.
    containers: Vec<(&'static str, String)>,
    host_port: u16,
}

impl Story {
    /// Nothing has happened yet.
    pub(super) fn new(scratch: Scratch, yours: Option<String>) -> Story {
        Story {
            scratch,
            daemon: None,
            client: None,
            registry: None,
            image: String::new(),
            image_id: String::new(),
            yours: yours.map(|name| (name, String::new())),
            pod: None,
            containers: Vec::new(),
            host_port: 0,
        }
    }

    /// Does one stage.
    pub(super) async fn tell(&mut self, stage: Stage) -> Result<(), Failure> {
        match stage {
            Stage::StartDaemon => self.start_daemon().await,
            Stage::ServeImage => self.serve_image().await,
            Stage::Pull => self.pull().await,
            Stage::RunPod => self.run_pod().await,
            Stage::StartContainers => self.start_containers().await,
            Stage::ShowLog => self.show_log().await,
            Stage::FetchInPod => self.fetch_in_pod().await,
            Stage::FetchFromHost => self.fetch_from_host().await,
            Stage::ShowStats => self.show_stats().await,
            Stage::Stop => self.stop().await,
            Stage::Remove => self.remove().await,
        }
    }

    async fn start_daemon(&mut self) -> Result<(), Failure> {
        let daemon = self.daemon.insert(Daemon::spawn(&self.scratch)?);
        self.client = Some(daemon.client(&self.scratch).await?);
        say(&format!("its files are in {}", self.scratch.directory().display()));
        Ok(())
    }

    async fn serve_image(&mut self) -> Result<(), Failure> {
        let cannot =
            |source| Failure::File { what: "making the image", path: "/proc/self/exe".into(), source };
        let image = image::make().map_err(cannot)?;
        let registry = Registry::new();
        registry.add("demo/userland", "1", &image);
        let listening = registry.listen().await.map_err(cannot)?;
        self.image = format!("{}/demo/userland:1", listening.host());
        say(&format!("{} with {} layers", self.image, image.layers.len()));
        self.registry = Some(listening);
        Ok(())
    }

    async fn pull(&mut self) -> Result<(), Failure> {
        let client = self.client()?;
        let id = pull(&client, &self.image, None, Progress::for_terminal()).await?;
        say(&format!("image {}", short_id(&id)));
        self.image_id = id;
        if let Some((name, id)) = &mut self.yours {
            *id = pull(&client, name, None, Progress::for_terminal()).await?;
            say(&format!("image {}", short_id(id)));
        }
        Ok(())
    }

    async fn run_pod(&mut self) -> Result<(), Failure> {
        let client = self.client()?;
        self.host_port = free_port()?;
        let config = self.pod_config();
        let request = cri_v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let answer = client.runtime().run_pod_sandbox(request).await;
        let id = answer.explain(|| "running the pod".into())?.pod_sandbox_id;
        let status = client.pod_status(&id, false).await?.status.unwrap_or_default();
        let ip = status.network.unwrap_or_default().ip;
        say(&format!(
            "pod {} has the address {ip}; port {} of this machine leads to it",
            short_id(&id),
            self.host_port
        ));
        self.pod = Some((id, config));
        Ok(())
    }

    async fn start_containers(&mut self) -> Result<(), Failure> {
        let port = PORT.to_string();
        self.start("web", &self.image_id.clone(), &["httpd", &port, "/www"]).await?;
        self.start("clock", &self.image_id.clone(), &["ticker", "tick"]).await?;
        if let Some((_, id)) = self.yours.clone() {
            self.start("yours", &id, &[]).await?;
        }
        let names: Vec<String> =
            self.containers.iter().map(|(name, id)| format!("{name} ({})", short_id(id))).collect();
        say(&format!("running: {}", names.join(", ")));
        Ok(())
    }

    async fn start(&mut self, name: &'static str, image: &str, args: &[&str]) -> Result<(), Failure> {
        let client = self.client()?;
        let (pod_id, pod_config) = self.pod.clone().ok_or_else(|| missing("pod"))?;
        let request = cri_v1::CreateContainerRequest {
            pod_sandbox_id: pod_id,
            config: Some(container_config(name, image, args)),
            sandbox_config: Some(pod_config),
        };
        let answer = client.runtime().create_container(request).await;
        let id = answer.explain(|| format!("creating the container {name}"))?.container_id;
        let request = cri_v1::StartContainerRequest { container_id: id.clone() };
        client
            .runtime()
            .start_container(request)
            .await
            .explain(|| format!("starting the container {name}"))?;
        self.containers.push((name, id));
        Ok(())
    }

    async fn show_log(&self) -> Result<(), Failure> {
        let id = self.container("clock")?;
        let path = self.client()?.container_status(id, false).await?.status.unwrap_or_default().log_path;
        let cannot = |source| Failure::File { what: "reading the log", path: path.clone().into(), source };
        let began = Instant::now();
        loop {
            let log = std::fs::read_to_string(&path).map_err(cannot)?;
            if log.lines().count() >= 3 {
                log.lines().take(3).for_each(say);
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(5) {
                return Err(Failure::Usage(format!("{path} has no three lines after 5 seconds")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn fetch_in_pod(&self) -> Result<(), Failure> {
        let url = format!("http://127.0.0.1:{PORT}/");
        say(&format!("pintle exec clock wget -qO- {url}"));
        let command = vec!["wget".into(), "-qO-".into(), url];
        let (output, code) =
            exec_sync(&self.client()?, self.container("clock")?, command, Some(Duration::from_secs(10)))
                .await?;
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        if code != 0 || page != PAGE {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Failure::Usage(format!("wget ended with {code}: {page}{error}")));
        }
        say(page.trim_end());
        Ok(())
    }

    async fn fetch_from_host(&self) -> Result<(), Failure> {
        let url = format!("http://127.0.0.1:{}/", self.host_port);
        let page = wget::get(&url).await.map_err(Failure::Usage)?;
        if page != PAGE.as_bytes() {
            return Err(Failure::Usage(format!(
                "{url} is another page: {:?}",
                String::from_utf8_lossy(&page)
            )));
        }
        say(&format!("{url}: {}", PAGE.trim_end()));
        Ok(())
    }

    async fn show_stats(&self) -> Result<(), Failure> {
        let client = self.client()?;
        let before = stats::sample(&client).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = stats::sample(&client).await?;
        let usages = stats::usages(&Inventory::load(&client).await?, &before, &now);
        write_out(&stats::table(&usages).lines().map(|line| format!("  {line}\n")).collect::<String>())
    }

    async fn stop(&self) -> Result<(), Failure> {
        let client = self.client()?;
        let (id, _) = self.pod.as_ref().ok_or_else(|| missing("pod"))?;
        stop_pod(&client, &Inventory::load(&client).await?, id, GRACE_SECS).await?;
        for (name, id) in &self.containers {
            let status = client.container_status(id, false).await?.status.unwrap_or_default();
            say(&format!("{name}: {} with code {}", view::container_state(status.state), status.exit_code));
        }
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), Failure> {
        let client = self.client()?;
        let (id, _) = self.pod.take().ok_or_else(|| missing("pod"))?;
        let request = cri_v1::RemovePodSandboxRequest { pod_sandbox_id: id };
        client.runtime().remove_pod_sandbox(request).await.explain(|| "removing the pod".into())?;
        let image = cri_v1::ImageSpec { image: self.image_id.clone(), ..Default::default() };
        let request = cri_v1::RemoveImageRequest { image: Some(image) };
        client.images().remove_image(request).await.explain(|| "removing the image".into())?;
        let left = (client.list_pods().await?.len(), client.list_containers().await?.len());
        say(&format!("{} pods and {} containers are left", left.0, left.1));
        Ok(())
    }

    fn client(&self) -> Result<Client, Failure> {
        self.client.clone().ok_or_else(|| missing("daemon"))
    }

    fn container(&self, wanted: &str) -> Result<&str, Failure> {
        let found = self.containers.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, id)| id.as_str()).ok_or_else(|| missing("container"))
    }

    fn pod_config(&self) -> cri_v1::PodSandboxConfig {
        let namespaces =
            cri_v1::NamespaceOption { pid: cri_v1::NamespaceMode::Container.into(), ..Default::default() };
        cri_v1::PodSandboxConfig {
            metadata: Some(cri_v1::PodSandboxMetadata {
                name: "demo".into(),
                uid: self.scratch.tag.clone(),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "demo".into(),
            log_directory: self.scratch.log_directory().display().to_string(),
            port_mappings: vec![cri_v1::PortMapping {
                protocol: cri_v1::Protocol::Tcp.into(),
                container_port: PORT.into(),
                host_port: self.host_port.into(),
                host_ip: String::new(),
            }],
            linux: Some(cri_v1::LinuxPodSandboxConfig {
                cgroup_parent: self.scratch.cgroup(),
                security_context: Some(cri_v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn container_config(name: &str, image: &str, args: &[&str]) -> cri_v1::ContainerConfig {
    let namespaces =
        cri_v1::NamespaceOption { pid: cri_v1::NamespaceMode::Container.into(), ..Default::default() };
    cri_v1::ContainerConfig {
        metadata: Some(cri_v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(cri_v1::ImageSpec { image: image.into(), ..Default::default() }),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(cri_v1::LinuxContainerConfig {
            resources: Some(cri_v1::LinuxContainerResources {
                cpu_period: 100_000,
                cpu_quota: 50_000,
                memory_limit_in_bytes: 128 << 20,
                ..Default::default()
            }),
            security_context: Some(cri_v1::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

fn missing(what: &str) -> Failure {
    Failure::Usage(format!("there is no {what}, because an earlier stage failed"))
}

/// A TCP port of this machine that nobody listens on now.
fn free_port() -> Result<u16, Failure> {
    let cannot = |source| Failure::File { what: "looking for a free port", path: "127.0.0.1".into(), source };
    let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot)?;
    Ok(listener.local_addr().map_err(cannot)?.port())
}
