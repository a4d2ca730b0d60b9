//! Limits of a container: CRI's numbers, where zero means "not set", to those of the runtime spec, and the merging of an update.

use std::collections::HashMap;

use model::request::Resources;
use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use crate::error::Refusal;
use crate::input::{CgroupVersion, HostFacts};

/// Why limits are refused. The kernel would refuse most of these too, with `EINVAL` and no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    #[error("resources.{field} is {given}; it must be {must}")]
    OutOfRange { field: &'static str, given: i64, must: &'static str },
    #[error(
        "resources.memory_swap_limit_in_bytes is {swap}, less than memory_limit_in_bytes, {limit}, which it includes"
    )]
    SwapBelowLimit { swap: i64, limit: i64 },
    #[error("resources.{field} {given:?} is not a list of numbers and ranges such as 0-3,7")]
    CpuSet { field: &'static str, given: String },
    #[error("resources.hugepage_limits: {given:?} is not a page size such as 2MB or 1GB")]
    PageSize { given: String },
    #[error("resources.hugepage_limits: this host has no huge pages of {page_size} to limit")]
    NoSuchPageSize { page_size: String },
    #[error("resources.unified {key:?}: {why}")]
    Unified { key: String, why: &'static str },
    #[error("resources.unified needs cgroup v2; this host has v1")]
    UnifiedOnV1,
}

impl ResourceError {
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            ResourceError::OutOfRange { .. }
            | ResourceError::SwapBelowLimit { .. }
            | ResourceError::CpuSet { .. }
            | ResourceError::PageSize { .. }
            | ResourceError::Unified { .. } => Refusal::Invalid,
            ResourceError::NoSuchPageSize { .. } | ResourceError::UnifiedOnV1 => Refusal::HostLacks,
        }
    }
}

/// The limits as the runtime spec spells them, without device rules.
///
/// A memory limit without a swap limit means no swap (both numbers are the same), as Kubernetes expects. CPU shares are brought into
/// the kernel's range, 2 to 262144. The out-of-memory score is a process's and stands elsewhere in a spec; it is only checked.
pub fn to_linux(asked: &Resources, host: &HostFacts) -> Result<LinuxResources, ResourceError> {
    oom_score_adj(asked, None)?;
    let mut linux = LinuxResources::default();
    linux.set_cpu(cpu(asked)?).set_memory(memory(asked)?);
    let pages = hugepages(asked, host)?;
    linux.set_hugepage_limits((!pages.is_empty()).then_some(pages));
    linux.set_unified(unified(asked, host.cgroup)?);
    Ok(linux)
}

/// What holds after an update: of `asked`, what is not set leaves `current` as it is.
///
/// The result is what the record keeps and [`to_linux`] translates. A new memory limit without a swap limit takes the swap limit
/// with it, so that the two never contradict.
pub fn merge(current: &Resources, asked: &Resources) -> Resources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let keeps_swap = asked.memory_limit_bytes == 0 && asked.memory_swap_limit_bytes == 0;
    let mut hugepage_limits = current.hugepage_limits.clone();
    for (size, limit) in &asked.hugepage_limits {
        match hugepage_limits.iter_mut().find(|(known, _)| known == size) {
            Some(known) => known.1 = *limit,
            None => hugepage_limits.push((size.clone(), *limit)),
        }
    }
    let mut unified = current.unified.clone();
    unified.extend(asked.unified.clone());
    Resources {
        cpu_period_us: number(asked.cpu_period_us, current.cpu_period_us),
        cpu_quota_us: number(asked.cpu_quota_us, current.cpu_quota_us),
        cpu_shares: number(asked.cpu_shares, current.cpu_shares),
        memory_limit_bytes: number(asked.memory_limit_bytes, current.memory_limit_bytes),
        memory_swap_limit_bytes: if keeps_swap {
            current.memory_swap_limit_bytes
        } else {
            asked.memory_swap_limit_bytes
        },
        oom_score_adj: number(asked.oom_score_adj, current.oom_score_adj),
        cpuset_cpus: text(&asked.cpuset_cpus, &current.cpuset_cpus),
        cpuset_mems: text(&asked.cpuset_mems, &current.cpuset_mems),
        hugepage_limits,
        unified,
    }
}

/// oom_score_adj(5) of the container's first process: the asked one, but not below what the daemon may give.
pub(crate) fn oom_score_adj(asked: &Resources, floor: Option<i32>) -> Result<i32, ResourceError> {
    let given = asked.oom_score_adj;
    let in_range = i32::try_from(given).ok().filter(|score| (-1000..=1000).contains(score));
    let score = in_range.ok_or(ResourceError::OutOfRange {
        field: "oom_score_adj",
        given,
        must: "from -1000 to 1000",
    })?;
    Ok(floor.map_or(score, |floor| score.max(floor)))
}

fn cpu(asked: &Resources) -> Result<Option<LinuxCpu>, ResourceError> {
    let refuse = |field, given, must| Err(ResourceError::OutOfRange { field, given, must });
    let shares = match asked.cpu_shares {
        0 => None,
        shares if shares < 0 => return refuse("cpu_shares", shares, "positive, or 0 for not set"),
        shares => Some(shares.clamp(2, 262_144).unsigned_abs()),
    };
    let quota = match asked.cpu_quota_us {
        0 => None,
        quota if quota == -1 || quota >= 1000 => Some(quota),
        quota => {
            return refuse(
                "cpu_quota",
                quota,
                "at least 1000 (microseconds), -1 for no limit, or 0 for not set",
            );
        }
    };
    let period = match asked.cpu_period_us {
        0 => None,
        period if (1000..=1_000_000).contains(&period) => Some(period.unsigned_abs()),
        period => {
            return refuse("cpu_period", period, "from 1000 to 1000000 (microseconds), or 0 for not set");
        }
    };
    let cpus = cpu_set("cpuset_cpus", &asked.cpuset_cpus)?;
    let mems = cpu_set("cpuset_mems", &asked.cpuset_mems)?;
    if shares.is_none() && quota.is_none() && period.is_none() && cpus.is_none() && mems.is_none() {
        return Ok(None);
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(shares).set_quota(quota).set_period(period).set_cpus(cpus).set_mems(mems);
    Ok(Some(cpu))
}

/// A list as cpuset(7) describes it, for instance `0-3,7`.
fn cpu_set(field: &'static str, text: &str) -> Result<Option<String>, ResourceError> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
        None => number(part).is_some(),
    };
    match text {
        "" => Ok(None),
        text if text.len() < 4096 && text.split(',').all(range) => Ok(Some(text.into())),
        text => Err(ResourceError::CpuSet { field, given: text.chars().take(80).collect() }),
    }
}

fn memory(asked: &Resources) -> Result<Option<LinuxMemory>, ResourceError> {
    let limit_of = |field, given| match given {
        0 => Ok(None),
        given if given < -1 => {
            let must = "positive (bytes), -1 for no limit, or 0 for not set";
            Err(ResourceError::OutOfRange { field, given, must })
        }
        given => Ok(Some(given)),
    };
    let limit = limit_of("memory_limit_in_bytes", asked.memory_limit_bytes)?;
    let swap = limit_of("memory_swap_limit_in_bytes", asked.memory_swap_limit_bytes)?.or(limit);
    if limit.is_none() && swap.is_none() {
        return Ok(None);
    }
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        return Err(ResourceError::SwapBelowLimit { swap, limit });
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit).set_swap(swap);
    Ok(Some(memory))
}

/// The kubelet sends a limit of 0 for each page size that it knows of: where the host has no such pages, that changes nothing.
fn hugepages(asked: &Resources, host: &HostFacts) -> Result<Vec<LinuxHugepageLimit>, ResourceError> {
    let mut limits = Vec::new();
    for (size, limit) in &asked.hugepage_limits {
        if !is_page_size(size) {
            return Err(ResourceError::PageSize { given: size.chars().take(32).collect() });
        }
        if !host.hugepage_sizes.contains(size) {
            if *limit == 0 {
                continue;
            }
            return Err(ResourceError::NoSuchPageSize { page_size: size.clone() });
        }
        let mut page = LinuxHugepageLimit::default();
        page.set_page_size(size.clone()).set_limit(i64::try_from(*limit).unwrap_or(i64::MAX));
        limits.push(page);
    }
    Ok(limits)
}

/// A size as the kernel's hugetlb files spell it: a number and KB, MB or GB.
fn is_page_size(text: &str) -> bool {
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or("");
    (1..=6).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Keys become file names below the container's cgroup, so they are names of controller files and nothing else.
fn unified(
    asked: &Resources,
    cgroup: CgroupVersion,
) -> Result<Option<HashMap<String, String>>, ResourceError> {
    if asked.unified.is_empty() {
        return Ok(None);
    }
    if cgroup == CgroupVersion::V1 {
        return Err(ResourceError::UnifiedOnV1);
    }
    for (key, value) in &asked.unified {
        let refuse = |why| Err(ResourceError::Unified { key: key.chars().take(64).collect(), why });
        let plain = key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'));
        if !plain || key.len() > 64 || !key.contains('.') || key.starts_with('.') || key.contains("..") {
            return refuse("this is not the name of a controller's file, such as memory.high");
        }
        if key.starts_with("cgroup.") {
            return refuse("the files that control the cgroup itself belong to the runtime");
        }
        if value.len() > 4096 || value.contains(|c: char| c.is_control() && c != '\n') {
            return refuse("its value holds control characters or is longer than 4096 bytes");
        }
    }
    Ok(Some(asked.unified.clone().into_iter().collect()))
}

#[cfg(test)]
mod tests;
