//! Where the cgroups of pods and containers are: how each driver names them, and which parents of the kubelet's fit it.

use cgroup::{Driver, systemd};
use model::id::{ContainerId, PodId};
use model::request::PodRequest;

use crate::error::RunPodError;
use crate::record::PodCgroup;

/// What our scopes' names begin with, so that an administrator knows whose they are.
const PREFIX: &str = "pintle";

impl PodCgroup {
    /// The cgroup of a pod whose request names no parent: one of its own, which goes with it.
    pub(crate) fn own(driver: Driver, pod: &PodId) -> PodCgroup {
        let name = format!("{PREFIX}-pod-{pod}");
        let path = match driver {
            Driver::Cgroupfs => format!("/{name}"),
            Driver::Systemd => systemd::slice_path(&format!("{name}.slice")).unwrap_or_default(),
        };
        PodCgroup { path, ours: true }
    }

    /// Where the containers of a pod go.
    pub(crate) fn of(driver: Driver, pod: &PodId, request: &PodRequest) -> PodCgroup {
        let Some(parent) = &request.cgroup_parent else { return PodCgroup::own(driver, pod) };
        let path = match driver {
            Driver::Cgroupfs => parent.clone(),
            // It was checked.
            Driver::Systemd => systemd::slice_path(last(parent)).unwrap_or_default(),
        };
        PodCgroup { path, ours: false }
    }

    /// Who made it, and makes the groups in it; it may be another than the node's today.
    pub(crate) fn driver(&self) -> Driver {
        if self.path.ends_with(".slice") { Driver::Systemd } else { Driver::Cgroupfs }
    }

    /// What the runtime specification calls the cgroup of a container in it (`cgroupsPath`).
    pub(crate) fn name_of(&self, container: &ContainerId) -> String {
        match self.driver() {
            Driver::Cgroupfs => format!("{}/{container}", self.path.trim_end_matches('/')),
            Driver::Systemd => format!("{}:{PREFIX}:{container}", last(&self.path)),
        }
    }
}

/// Refuses a parent that the kubelet made by another driver than ours: its limits would be at one place and the containers at another.
pub(crate) fn check(driver: Driver, request: &PodRequest) -> Result<(), RunPodError> {
    let Some(parent) = &request.cgroup_parent else { return Ok(()) };
    let is_slice = parent.ends_with(".slice");
    let other = match driver {
        Driver::Cgroupfs if is_slice => Driver::Systemd,
        Driver::Systemd if !is_slice => Driver::Cgroupfs,
        Driver::Cgroupfs => return Ok(()),
        Driver::Systemd => return check_slice(parent, request),
    };
    let (name, parent) = (request.name.clone(), parent.clone());
    Err(RunPodError::OtherCgroupDriver { name, parent, ours: driver.name(), theirs: other.name() })
}

/// A slice's name, or the path that systemd gives a slice of that name.
fn check_slice(parent: &str, request: &PodRequest) -> Result<(), RunPodError> {
    let place = systemd::slice_path(last(parent)).filter(|path| path != "/");
    let why = match place {
        Some(place) if parent == place || parent == last(parent) => return Ok(()),
        Some(place) => {
            format!("cgroup_parent {parent:?} is not where systemd puts that slice, which is {place:?}")
        }
        None => {
            format!("cgroup_parent {parent:?} does not end with the name of a slice in which units can be")
        }
    };
    Err(RunPodError::Invalid { name: request.name.clone(), why })
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: &str = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice";

    fn request(parent: &str) -> PodRequest {
        PodRequest {
            cgroup_parent: Some(parent.into()).filter(|_| !parent.is_empty()),
            ..PodRequest::default()
        }
    }

    fn ids() -> (PodId, ContainerId) {
        (PodId::from_random([1; 32]), ContainerId::from_random([2; 32]))
    }

    #[test]
    fn every_name_leads_to_a_place_below_the_pods() {
        let (pod, container) = ids();
        for (driver, parent) in [
            (Driver::Cgroupfs, ""),
            (Driver::Cgroupfs, "/kubepods/besteffort/pod1"),
            (Driver::Cgroupfs, "/"),
            (Driver::Systemd, ""),
            (Driver::Systemd, SLICE),
            (Driver::Systemd, "kubepods-besteffort-pod1.slice"),
        ] {
            let request = request(parent);
            check(driver, &request).unwrap();
            let of_pod = PodCgroup::of(driver, &pod, &request);
            assert_eq!((of_pod.driver(), of_pod.ours), (driver, parent.is_empty()), "{parent}");
            let path = driver.path(&of_pod.name_of(&container)).unwrap();
            assert!(
                path.starts_with(of_pod.path.trim_end_matches('/')),
                "{path} is not below {}",
                of_pod.path
            );
            assert!(path.contains(container.as_str()), "{path}");
        }
        let of_pod = PodCgroup::of(Driver::Systemd, &pod, &request("kubepods-besteffort-pod1.slice"));
        assert_eq!(of_pod.path, SLICE);
        let scope = Driver::Systemd.path(&of_pod.name_of(&container)).unwrap();
        assert_eq!(scope, format!("{SLICE}/pintle-{container}.scope"));
    }

    #[test]
    fn a_kubelet_with_another_driver_is_told() {
        for (driver, parent, words) in [
            (Driver::Cgroupfs, SLICE, ["cgroupDriver: cgroupfs", "cgroup_driver = \"systemd\""]),
            (Driver::Systemd, "/kubepods/pod1", ["cgroupDriver: systemd", "cgroup_driver = \"cgroupfs\""]),
        ] {
            let error = check(driver, &request(parent)).unwrap_err();
            assert!(matches!(error, RunPodError::OtherCgroupDriver { .. }));
            let text = error.to_string();
            assert!(text.contains(parent) && words.iter().all(|word| text.contains(word)), "{text}");
        }
        for bad in ["-.slice", "/a.slice/b.slice", "a--b.slice", "/x/a.slice", ".slice"] {
            let error = check(Driver::Systemd, &request(bad)).unwrap_err();
            assert!(matches!(error, RunPodError::Invalid { .. }), "{bad}");
        }
    }
}
