//! NRI's resources as limits of the runtime spec.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxHugepageLimit, LinuxPids, LinuxResources};

use crate::api;
use crate::error::SpecError;

/// Sets in `limits` whatever `wanted` sets. A memory limit without a swap limit is one without swap, as everywhere in Kubernetes.
///
/// # Errors
/// A class of block I/O or of RDT: there are none here. A number or a device that is none.
pub fn add_limits(limits: &mut LinuxResources, wanted: &api::LinuxResources) -> Result<(), SpecError> {
    for (what, class) in [("block I/O class", &wanted.blockio_class), ("RDT class", &wanted.rdt_class)] {
        // An empty class is none.
        if let Some(class) = class.as_ref().filter(|class| !class.value.is_empty()) {
            let what = format!("the {what} {:?}", class.value);
            return Err(SpecError { what, why: "no classes are configured on this node".into() });
        }
    }
    memory(limits, wanted);
    cpu(limits, wanted);
    for page in &wanted.hugepage_limits {
        let mut limit = LinuxHugepageLimit::default();
        limit.set_page_size(page.page_size.clone()).set_limit(i64::try_from(page.limit).unwrap_or(i64::MAX));
        let pages = limits.hugepage_limits_mut().get_or_insert_default();
        pages.retain(|known| known.page_size() != &page.page_size);
        pages.push(limit);
    }
    if !wanted.unified.is_empty() {
        limits.unified_mut().get_or_insert_default().extend(wanted.unified.clone());
    }
    if let Some(pids) = &wanted.pids {
        let mut limit = LinuxPids::default();
        limit.set_limit(pids.limit);
        limits.set_pids(Some(limit));
    }
    for rule in &wanted.devices {
        limits.devices_mut().get_or_insert_default().push(device_rule(rule)?);
    }
    Ok(())
}

fn memory(limits: &mut LinuxResources, wanted: &api::LinuxResources) {
    let Some(wanted) = &wanted.memory else { return };
    let memory = limits.memory_mut().get_or_insert_default();
    if let Some(limit) = wanted.limit.as_ref().map(|limit| limit.value).filter(|limit| *limit != 0) {
        memory.set_limit(Some(limit)).set_swap(Some(limit));
    }
    macro_rules! set {
        ($($name:ident: $setter:ident),*) => { $(
            if let Some(value) = &wanted.$name {
                memory.$setter(Some(value.value));
            }
        )* };
    }
    set!(
        reservation: set_reservation,
        swap: set_swap,
        kernel: set_kernel,
        kernel_tcp: set_kernel_tcp,
        swappiness: set_swappiness,
        disable_oom_killer: set_disable_oom_killer,
        use_hierarchy: set_use_hierarchy
    );
}

fn cpu(limits: &mut LinuxResources, wanted: &api::LinuxResources) {
    let Some(wanted) = &wanted.cpu else { return };
    let cpu = limits.cpu_mut().get_or_insert_default();
    macro_rules! set {
        ($($name:ident: $setter:ident),*) => { $(
            if let Some(value) = &wanted.$name {
                cpu.$setter(Some(value.value));
            }
        )* };
    }
    set!(
        shares: set_shares,
        quota: set_quota,
        period: set_period,
        realtime_runtime: set_realtime_runtime,
        realtime_period: set_realtime_period
    );
    if !wanted.cpus.is_empty() {
        cpu.set_cpus(Some(wanted.cpus.clone()));
    }
    if !wanted.mems.is_empty() {
        cpu.set_mems(Some(wanted.mems.clone()));
    }
}

fn device_rule(wanted: &api::LinuxDeviceCgroup) -> Result<LinuxDeviceCgroup, SpecError> {
    let mut rule = LinuxDeviceCgroup::default();
    let kind = if wanted.r#type.is_empty() { "a" } else { &wanted.r#type };
    rule.set_allow(wanted.allow)
        .set_typ(Some(device_type(kind)?))
        .set_major(wanted.major.as_ref().map(|number| number.value))
        .set_minor(wanted.minor.as_ref().map(|number| number.value))
        .set_access((!wanted.access.is_empty()).then(|| wanted.access.clone()));
    Ok(rule)
}

/// The type of a device as `mknod` spells it.
pub(crate) fn device_type(text: &str) -> Result<LinuxDeviceType, SpecError> {
    match text {
        "a" => Ok(LinuxDeviceType::A),
        "b" => Ok(LinuxDeviceType::B),
        "c" => Ok(LinuxDeviceType::C),
        "u" => Ok(LinuxDeviceType::U),
        "p" => Ok(LinuxDeviceType::P),
        _ => Err(SpecError {
            what: format!("a device of type {text:?}"),
            why: "there are b, c, u and p, and a for all".into(),
        }),
    }
}
