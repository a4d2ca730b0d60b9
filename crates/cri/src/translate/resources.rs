//! Limits of a container, both ways.

use model::request::Resources;

use super::BadField;
use super::text::beginning;
use crate::runtime_v1::{HugepageLimit, LinuxContainerResources};

/// The most page sizes and cgroup files that are taken; no machine has more.
const MAX_ENTRIES: usize = 64;

/// The limits as they are asked for. Their ranges are checked where they become a spec.
pub fn from_proto(asked: LinuxContainerResources) -> Result<Resources, BadField> {
    if asked.hugepage_limits.len() > MAX_ENTRIES {
        return Err(BadField::new("hugepage_limits", format!("more than {MAX_ENTRIES} entries")));
    }
    if asked.unified.len() > MAX_ENTRIES {
        return Err(BadField::new("unified", format!("more than {MAX_ENTRIES} entries")));
    }
    for (field, set) in [("cpuset_cpus", &asked.cpuset_cpus), ("cpuset_mems", &asked.cpuset_mems)] {
        if set.len() >= 4096 {
            return Err(BadField::new(field, format!("{:?}... is too long", beginning(set))));
        }
    }
    Ok(Resources {
        cpu_period_us: asked.cpu_period,
        cpu_quota_us: asked.cpu_quota,
        cpu_shares: asked.cpu_shares,
        memory_limit_bytes: asked.memory_limit_in_bytes,
        memory_swap_limit_bytes: asked.memory_swap_limit_in_bytes,
        oom_score_adj: asked.oom_score_adj,
        cpuset_cpus: asked.cpuset_cpus,
        cpuset_mems: asked.cpuset_mems,
        hugepage_limits: asked.hugepage_limits.into_iter().map(|page| (page.page_size, page.limit)).collect(),
        unified: asked.unified,
    })
}

/// The limits that are in force.
pub fn to_proto(resources: &Resources) -> LinuxContainerResources {
    let page =
        |(page_size, limit): &(String, u64)| HugepageLimit { page_size: page_size.clone(), limit: *limit };
    LinuxContainerResources {
        cpu_period: resources.cpu_period_us,
        cpu_quota: resources.cpu_quota_us,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit_bytes,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources.hugepage_limits.iter().map(page).collect(),
        unified: resources.unified.clone(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_lead_back() {
        let asked = LinuxContainerResources {
            cpu_period: 1,
            cpu_quota: 2,
            cpu_shares: 3,
            memory_limit_in_bytes: 4,
            oom_score_adj: 5,
            cpuset_cpus: "0".into(),
            cpuset_mems: "1".into(),
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 6 }],
            unified: [("memory.high".to_owned(), "7".to_owned())].into(),
            memory_swap_limit_in_bytes: 8,
        };
        assert_eq!(to_proto(&from_proto(asked.clone()).unwrap()), asked);
    }

    #[test]
    fn floods_are_refused() {
        let pages = vec![HugepageLimit::default(); 65];
        let asked = LinuxContainerResources { hugepage_limits: pages, ..Default::default() };
        assert_eq!(from_proto(asked).unwrap_err().field, "hugepage_limits");
        let unified = (0..65).map(|n| (n.to_string(), String::new())).collect();
        let asked = LinuxContainerResources { unified, ..Default::default() };
        assert_eq!(from_proto(asked).unwrap_err().field, "unified");
        let asked = LinuxContainerResources { cpuset_mems: "0,".repeat(4096), ..Default::default() };
        assert_eq!(from_proto(asked).unwrap_err().field, "cpuset_mems");
    }
}
