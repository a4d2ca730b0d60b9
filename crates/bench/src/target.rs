//! A runtime that is measured: its name, its socket and the process id of its daemon.

use anyhow::{Context, Result};
use cri::runtime_v1 as v1;
use cri::runtime_v1::image_service_client::ImageServiceClient;
use cri::runtime_v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::str::FromStr;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// `NAME=ENDPOINT[,PID]` of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) daemon_pid: Option<i32>,
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Given, String> {
        let usage = "write it as NAME=unix:///socket or NAME=unix:///socket,PID";
        let (name, rest) = text.split_once('=').ok_or(usage)?;
        let (endpoint, pid) = match rest.rsplit_once(',') {
            Some((endpoint, pid)) => (endpoint, Some(pid.parse().map_err(|_| usage)?)),
            None => (rest, None),
        };
        let socket = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        if name.is_empty() || !socket.starts_with('/') {
            return Err(usage.into());
        }
        Ok(Given { name: name.into(), socket: socket.into(), daemon_pid: pid })
    }
}

/// A connected runtime.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) daemon_pid: Option<i32>,
    /// What it says it is, for the report.
    pub(crate) version: String,
    channel: Channel,
}

impl Target {
    /// Connects and asks for the version.
    pub(crate) async fn connect(given: &Given) -> Result<Target> {
        let socket = given.socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
        let channel = channel.with_context(|| format!("connecting to {}", given.socket.display()))?;
        let mut target = Target {
            name: given.name.clone(),
            daemon_pid: given.daemon_pid,
            version: String::new(),
            channel,
        };
        let answer =
            target.runtime().version(v1::VersionRequest::default()).await.context("Version")?.into_inner();
        target.version = format!("{} {}", answer.runtime_name, answer.runtime_version);
        Ok(target)
    }

    /// The runtime service.
    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(cri::MAX_MESSAGE_BYTES)
    }

    /// The image service.
    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(cri::MAX_MESSAGE_BYTES)
    }

    /// Pulls the image where it is absent.
    pub(crate) async fn pull_if_absent(&self, image: &str) -> Result<()> {
        let spec = Some(v1::ImageSpec { image: image.into(), ..Default::default() });
        let request = v1::ImageStatusRequest { image: spec.clone(), verbose: false };
        if self.images().image_status(request).await?.into_inner().image.is_none() {
            let request = v1::PullImageRequest { image: spec, ..Default::default() };
            let pulled = self.images().pull_image(request).await;
            pulled.with_context(|| format!("{}: pulling {image}", self.name))?;
        }
        Ok(())
    }

    /// Removes every pod that a measurement made, after one was broken off.
    pub(crate) async fn remove_pods(&self) -> Result<()> {
        let label_selector = [(super::pods::LABEL.to_owned(), "1".to_owned())].into();
        let filter = Some(v1::PodSandboxFilter { label_selector, ..Default::default() });
        let answer = self.runtime().list_pod_sandbox(v1::ListPodSandboxRequest { filter }).await?;
        for pod in answer.into_inner().items {
            let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
            self.runtime().stop_pod_sandbox(stop).await?;
            self.runtime().remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_with_and_without_a_process_id() {
        let given: Given = "a=unix:///run/a.sock,12".parse().unwrap();
        assert_eq!(given, Given { name: "a".into(), socket: "/run/a.sock".into(), daemon_pid: Some(12) });
        assert_eq!("a=/run/a.sock".parse::<Given>().unwrap().daemon_pid, None);
        for bad in ["", "a", "=unix:///x", "a=tcp://x", "a=/x,y"] {
            assert!(bad.parse::<Given>().is_err(), "{bad}");
        }
    }
}
