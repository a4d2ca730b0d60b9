//! The filters of List calls. They read the snapshot and nothing else.

use std::collections::BTreeMap;

use node::{ContainerRecord, PodRecord};

use super::{BadField, enumeration, status};
use crate::runtime_v1 as proto;

/// Which pods a list is about.
#[derive(Debug, Default)]
pub struct PodFilter {
    id: String,
    state: Option<proto::PodSandboxState>,
    labels: BTreeMap<String, String>,
}

impl PodFilter {
    /// An absent filter lets everything through; an id may be the beginning of one.
    pub fn parse(filter: Option<proto::PodSandboxFilter>) -> Result<PodFilter, BadField> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|value| enumeration("filter.state.state", value.state)).transpose()?;
        Ok(PodFilter { id: filter.id, state, labels: filter.label_selector })
    }

    /// That of a list of statistics.
    pub fn of_stats(filter: Option<proto::PodSandboxStatsFilter>) -> PodFilter {
        let filter = filter.unwrap_or_default();
        PodFilter { id: filter.id, state: None, labels: filter.label_selector }
    }

    pub fn admits(&self, record: &PodRecord) -> bool {
        record.id.as_str().starts_with(&self.id)
            && self.state.is_none_or(|state| state == status::pod_state(record))
            && has_labels(&record.request.labels, &self.labels)
    }
}

/// Which containers a list is about.
#[derive(Debug, Default)]
pub struct ContainerFilter {
    id: String,
    pod: String,
    state: Option<proto::ContainerState>,
    labels: BTreeMap<String, String>,
}

impl ContainerFilter {
    /// An absent filter lets everything through; ids may be the beginnings of ones.
    pub fn parse(filter: Option<proto::ContainerFilter>) -> Result<ContainerFilter, BadField> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|value| enumeration("filter.state.state", value.state)).transpose()?;
        Ok(ContainerFilter {
            id: filter.id,
            pod: filter.pod_sandbox_id,
            state,
            labels: filter.label_selector,
        })
    }

    /// That of a list of statistics.
    pub fn of_stats(filter: Option<proto::ContainerStatsFilter>) -> ContainerFilter {
        let filter = filter.unwrap_or_default();
        ContainerFilter {
            id: filter.id,
            pod: filter.pod_sandbox_id,
            state: None,
            labels: filter.label_selector,
        }
    }

    pub fn admits(&self, record: &ContainerRecord) -> bool {
        record.id.as_str().starts_with(&self.id)
            && record.pod.as_str().starts_with(&self.pod)
            && self.state.is_none_or(|state| state == status::container_state(record))
            && has_labels(&record.request.labels, &self.labels)
    }
}

fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_must_all_be_there() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let labels = map(&[("a", "1"), ("b", "2")]);
        assert!(has_labels(&labels, &map(&[])));
        assert!(has_labels(&labels, &map(&[("a", "1"), ("b", "2")])));
        assert!(!has_labels(&labels, &map(&[("a", "2")])));
        assert!(!has_labels(&labels, &map(&[("c", "1")])));
    }

    #[test]
    fn states_that_do_not_exist_are_refused() {
        let state = Some(proto::PodSandboxStateValue { state: 9 });
        let filter = proto::PodSandboxFilter { state, ..Default::default() };
        assert_eq!(PodFilter::parse(Some(filter)).unwrap_err().field, "filter.state.state");
        let state = Some(proto::ContainerStateValue { state: -1 });
        let filter = proto::ContainerFilter { state, ..Default::default() };
        assert_eq!(ContainerFilter::parse(Some(filter)).unwrap_err().field, "filter.state.state");
    }
}
