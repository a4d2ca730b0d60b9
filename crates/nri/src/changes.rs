//! Merging what plugins want of containers' resources: field by field, each with one owner.

use std::collections::BTreeMap;

use crate::api::{ContainerEviction, ContainerUpdate, Field, LinuxContainerUpdate, LinuxResources};
use crate::error::Refusal;
use crate::owners::Owners;

/// Takes every field that `from` sets over into each of `targets`. `claim` is asked for each first.
pub(crate) fn merge_resources(
    from: &LinuxResources,
    targets: &mut [&mut LinuxResources],
    mut claim: impl FnMut(Field, Option<&str>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    macro_rules! set {
        ($from:expr, $field:ident, |$into:ident| $place:expr) => {
            if let Some(value) = &$from {
                claim(Field::$field, None)?;
                for $into in targets.iter_mut() {
                    $place = Some(value.clone());
                }
            }
        };
    }
    macro_rules! parts {
        ($part:ident: $($name:ident = $field:ident),*) => {
            if let Some(part) = &from.$part {
                $( set!(part.$name, $field, |into| into.$part.get_or_insert_default().$name); )*
            }
        };
    }
    parts!(memory: limit = MemLimit, reservation = MemReservation, swap = MemSwapLimit, kernel = MemKernelLimit,
        kernel_tcp = MemTcpLimit, swappiness = MemSwappiness, disable_oom_killer = MemDisableOomKiller,
        use_hierarchy = MemUseHierarchy);
    parts!(cpu: shares = CpuShares, quota = CpuQuota, period = CpuPeriod, realtime_runtime = CpuRealtimeRuntime,
        realtime_period = CpuRealtimePeriod);
    if let Some(cpu) = &from.cpu {
        if !cpu.cpus.is_empty() {
            claim(Field::CpuSetCpUs, None)?;
            targets.iter_mut().for_each(|into| into.cpu.get_or_insert_default().cpus.clone_from(&cpu.cpus));
        }
        if !cpu.mems.is_empty() {
            claim(Field::CpuSetMems, None)?;
            targets.iter_mut().for_each(|into| into.cpu.get_or_insert_default().mems.clone_from(&cpu.mems));
        }
    }
    for page in &from.hugepage_limits {
        claim(Field::HugepageLimits, Some(&page.page_size))?;
        for into in targets.iter_mut() {
            into.hugepage_limits.retain(|known| known.page_size != page.page_size);
            into.hugepage_limits.push(page.clone());
        }
    }
    for (key, value) in &from.unified {
        claim(Field::CgroupsUnified, Some(key))?;
        targets.iter_mut().for_each(|into| drop(into.unified.insert(key.clone(), value.clone())));
    }
    targets.iter_mut().for_each(|into| into.devices.extend(from.devices.iter().cloned()));
    set!(from.blockio_class, BlockioClass, |into| into.blockio_class);
    set!(from.rdt_class, RdtClass, |into| into.rdt_class);
    set!(from.pids, PidsLimit, |into| into.pids);
    Ok(())
}

/// What plugins want of containers that exist already.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    updates: BTreeMap<String, ContainerUpdate>,
    evictions: Vec<ContainerEviction>,
}

impl Changes {
    /// Takes a plugin's updates over. One that contradicts another plugin's and may fail is left out.
    pub(crate) fn add(
        &mut self,
        updates: Vec<ContainerUpdate>,
        plugin: &str,
        owners: &mut Owners,
    ) -> Result<(), Refusal> {
        for update in updates {
            let before = owners.clone();
            let known = self.updates.get(&update.container_id);
            let mut merged =
                known.and_then(|known| known.linux.as_ref()?.resources.clone()).unwrap_or_default();
            let wanted = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
            let id = &update.container_id;
            let result = wanted.map_or(Ok(()), |wanted| {
                let claim = |field, key: Option<&str>| owners.claim(id, field, key, plugin);
                merge_resources(wanted, &mut [&mut merged], claim)
            });
            match result {
                Ok(()) => {
                    let ignore_failure =
                        update.ignore_failure && known.is_none_or(|known| known.ignore_failure);
                    let linux = Some(LinuxContainerUpdate { resources: Some(merged) });
                    let container_id = update.container_id.clone();
                    self.updates
                        .insert(update.container_id, ContainerUpdate { container_id, linux, ignore_failure });
                }
                Err(_) if update.ignore_failure => *owners = before,
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    pub(crate) fn evict(&mut self, evictions: Vec<ContainerEviction>) {
        self.evictions.extend(evictions);
    }

    /// What is wanted of one container, taken out of the rest.
    pub(crate) fn take(&mut self, container: &str) -> Option<LinuxResources> {
        self.updates.remove(container)?.linux?.resources
    }

    /// What was wanted of `container` so far.
    pub(crate) fn of(&self, container: &str) -> Option<&LinuxResources> {
        self.updates.get(container)?.linux.as_ref()?.resources.as_ref()
    }

    pub(crate) fn into_parts(self) -> (Vec<ContainerUpdate>, Vec<ContainerEviction>) {
        (self.updates.into_values().collect(), self.evictions)
    }

    pub(crate) fn updates(&self) -> Vec<ContainerUpdate> {
        self.updates.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HugepageLimit, LinuxCpu, LinuxMemory, LinuxPids, OptionalInt64, OptionalUInt64};

    fn memory(limit: i64) -> LinuxResources {
        let memory = LinuxMemory { limit: Some(OptionalInt64 { value: limit }), ..LinuxMemory::default() };
        LinuxResources { memory: Some(memory), ..LinuxResources::default() }
    }

    fn update(container: &str, resources: LinuxResources, ignore_failure: bool) -> ContainerUpdate {
        let linux = Some(LinuxContainerUpdate { resources: Some(resources) });
        ContainerUpdate { container_id: container.into(), linux, ignore_failure }
    }

    #[test]
    fn updates_of_two_plugins_become_one() {
        let (mut changes, mut owners) = (Changes::default(), Owners::default());
        let cpu =
            LinuxCpu { cpus: "0-1".into(), shares: Some(OptionalUInt64 { value: 7 }), ..LinuxCpu::default() };
        let second = LinuxResources {
            cpu: Some(cpu.clone()),
            pids: Some(LinuxPids { limit: 9 }),
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 4 }],
            ..LinuxResources::default()
        };
        changes.add(vec![update("c", memory(100), true)], "10-a", &mut owners).unwrap();
        changes
            .add(vec![update("c", second, false), update("d", memory(5), false)], "20-b", &mut owners)
            .unwrap();
        let merged = changes.take("c").unwrap();
        assert_eq!(merged.memory, memory(100).memory);
        assert_eq!((merged.cpu, merged.pids.unwrap().limit), (Some(cpu), 9));
        let (left, _) = changes.into_parts();
        assert_eq!(left, [update("d", memory(5), false)]);
    }

    #[test]
    fn a_contradiction_fails_or_is_left_out_whole() {
        let (mut changes, mut owners) = (Changes::default(), Owners::default());
        changes.add(vec![update("c", memory(100), false)], "10-a", &mut owners).unwrap();
        assert!(changes.add(vec![update("c", memory(200), false)], "20-b", &mut owners).is_err());
        let mut both = memory(300);
        both.pids = Some(LinuxPids { limit: 3 });
        changes.add(vec![update("c", both, true)], "20-b", &mut owners).unwrap();
        assert_eq!(changes.of("c"), Some(&memory(100)));
        let pids = LinuxResources { pids: Some(LinuxPids { limit: 3 }), ..LinuxResources::default() };
        changes.add(vec![update("c", pids, false)], "30-c", &mut owners).unwrap();
        assert_eq!(changes.of("c").unwrap().pids, Some(LinuxPids { limit: 3 }));
    }
}
