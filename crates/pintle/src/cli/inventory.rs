//! The pods and containers of the node, and the ones a person means on the command line.

use super::client::Client;
use super::failure::Failure;
use super::find::{Candidate, find};
use cri::runtime_v1 as cri_v1;

/// Label of the pods that `pintle run` makes: pod and container were made together, and are stopped and removed together.
pub(crate) const RUN_LABEL: &str = "pintle.run";

/// What is on the node at one moment.
pub(crate) struct Inventory {
    pub pods: Vec<cri_v1::PodSandbox>,
    pub containers: Vec<cri_v1::Container>,
}

/// A pod or a container.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Pod(&'a cri_v1::PodSandbox),
    Container(&'a cri_v1::Container),
}

impl Inventory {
    /// Asks the runtime for everything.
    pub(crate) async fn load(client: &Client) -> Result<Inventory, Failure> {
        let (pods, containers) = tokio::try_join!(client.list_pods(), client.list_containers())?;
        Ok(Inventory { pods, containers })
    }

    /// The container that `given` means. The name of a pod with exactly one container means that container.
    pub(crate) fn container(&self, given: &str) -> Result<&cri_v1::Container, Failure> {
        let unknown = match find("container", given, &self.container_candidates()) {
            Ok(index) => return Ok(&self.containers[index]),
            Err(unknown @ Failure::Unknown { .. }) => unknown,
            Err(ambiguous) => return Err(ambiguous),
        };
        let Ok(index) = find("pod", given, &self.pod_candidates()) else { return Err(unknown) };
        let of_pod: Vec<&cri_v1::Container> = self.of_pod(&self.pods[index].id).collect();
        match of_pod[..] {
            [] => Err(Failure::Usage(format!("{given} is a pod without containers"))),
            [only] => Ok(only),
            _ => {
                let names = of_pod.iter().map(|container| format!("{given}/{}", container_name(container)));
                Err(Failure::Ambiguous { given: given.to_owned(), candidates: names.collect() })
            }
        }
    }

    /// The pod that `given` means.
    pub(crate) fn pod(&self, given: &str) -> Result<&cri_v1::PodSandbox, Failure> {
        find("pod", given, &self.pod_candidates()).map(|index| &self.pods[index])
    }

    /// The pod or container that `given` means, for commands that act on either.
    ///
    /// What `pintle run` made is meant as a whole, so that `pintle rm NAME` undoes `pintle run --name NAME`, whichever of the ids is given.
    pub(crate) fn target(&self, given: &str) -> Result<Target<'_>, Failure> {
        match self.container_or_pod(given)? {
            Target::Container(container) => {
                let made_by_run = self.pod_of(container).filter(|pod| pod.labels.contains_key(RUN_LABEL));
                Ok(made_by_run.map_or(Target::Container(container), Target::Pod))
            }
            pod => Ok(pod),
        }
    }

    /// As [`Inventory::target`], without putting a container's pod in its place.
    pub(crate) fn container_or_pod(&self, given: &str) -> Result<Target<'_>, Failure> {
        let container = find("container", given, &self.container_candidates());
        let pod = find("pod", given, &self.pod_candidates());
        match (container, pod) {
            (Ok(container), Ok(pod)) => {
                let (container, pod) = (&self.containers[container], &self.pods[pod]);
                if container.pod_sandbox_id == pod.id {
                    return Ok(Target::Container(container));
                }
                let candidates =
                    vec![format!("the container {}", container.id), format!("the pod {}", pod.id)];
                Err(Failure::Ambiguous { given: given.to_owned(), candidates })
            }
            (Ok(container), Err(_)) => Ok(Target::Container(&self.containers[container])),
            (Err(_), Ok(pod)) => Ok(Target::Pod(&self.pods[pod])),
            (Err(ambiguous @ Failure::Ambiguous { .. }), Err(_)) => Err(ambiguous),
            (Err(_), Err(ambiguous @ Failure::Ambiguous { .. })) => Err(ambiguous),
            (
                Err(Failure::Unknown { given, mut similar, .. }),
                Err(Failure::Unknown { similar: pods, .. }),
            ) => {
                similar.extend(pods);
                similar.sort();
                similar.dedup();
                Err(Failure::Unknown { kind: "container or pod", given, similar })
            }
            (Err(other), Err(_)) => Err(other),
        }
    }

    /// The containers of a pod.
    pub(crate) fn of_pod(&self, pod_id: &str) -> impl Iterator<Item = &cri_v1::Container> {
        self.containers.iter().filter(move |container| container.pod_sandbox_id == pod_id)
    }

    /// The pod of a container.
    pub(crate) fn pod_of(&self, container: &cri_v1::Container) -> Option<&cri_v1::PodSandbox> {
        self.pods.iter().find(|pod| pod.id == container.pod_sandbox_id)
    }

    fn container_candidates(&self) -> Vec<Candidate> {
        self.containers.iter().map(|c| Candidate::container(c, self.pod_of(c))).collect()
    }

    fn pod_candidates(&self) -> Vec<Candidate> {
        self.pods.iter().map(Candidate::pod).collect()
    }
}

/// A container's name within its pod.
pub(crate) fn container_name(container: &cri_v1::Container) -> &str {
    container.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

/// A pod's name, without its namespace.
pub(crate) fn pod_name(pod: &cri_v1::PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, name: &str, made_by_run: bool) -> cri_v1::PodSandbox {
        let metadata = cri_v1::PodSandboxMetadata { name: name.into(), uid: id.into(), ..Default::default() };
        let mut pod = cri_v1::PodSandbox { id: id.into(), metadata: Some(metadata), ..Default::default() };
        if made_by_run {
            pod.labels.insert(RUN_LABEL.into(), "1".into());
        }
        pod
    }

    fn container(id: &str, name: &str, pod: &str) -> cri_v1::Container {
        let metadata = cri_v1::ContainerMetadata { name: name.into(), attempt: 0 };
        cri_v1::Container {
            id: id.into(),
            metadata: Some(metadata),
            pod_sandbox_id: pod.into(),
            ..Default::default()
        }
    }

    fn some() -> Inventory {
        Inventory {
            pods: vec![pod("p1", "web", true), pod("p2", "shop", false)],
            containers: vec![
                container("c1", "web", "p1"),
                container("c2", "front", "p2"),
                container("c3", "back", "p2"),
            ],
        }
    }

    #[test]
    fn what_run_made_is_one_thing_to_stop_and_remove() {
        for given in ["web", "c1", "p1"] {
            assert!(matches!(some().target(given), Ok(Target::Pod(pod)) if pod.id == "p1"), "{given}");
        }
        assert!(matches!(some().target("front"), Ok(Target::Container(c)) if c.id == "c2"));
    }

    #[test]
    fn the_pod_of_one_container_means_that_container() {
        assert_eq!(some().container("p1").unwrap().id, "c1");
        assert!(matches!(some().container("shop"), Err(Failure::Ambiguous { .. })));
    }

    #[test]
    fn what_is_neither_says_so() {
        assert!(matches!(some().target("shpo"), Err(Failure::Unknown { kind: "container or pod", .. })));
    }
}
