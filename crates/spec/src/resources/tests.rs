//! Tables of limits, and what an update must leave alone.

use proptest::prelude::*;

use super::*;

fn host(cgroup: CgroupVersion) -> HostFacts {
    HostFacts {
        hostname: "node".into(),
        cgroup,
        kernel: seccomp::KernelVersion(6, 1),
        architecture: seccomp::Architecture::X86_64,
        capabilities: Default::default(),
        devices: vec![],
        hugepage_sizes: vec!["2MB".into()],
        oom_score_adj_floor: None,
        apparmor: None,
    }
}

fn v2(asked: &Resources) -> Result<LinuxResources, ResourceError> {
    to_linux(asked, &host(CgroupVersion::V2))
}

#[test]
fn nothing_asked_is_nothing_set() {
    assert_eq!(v2(&Resources::default()), Ok(LinuxResources::default()));
}

#[test]
fn cpu_limits() {
    let asked = Resources {
        cpu_period_us: 100_000,
        cpu_quota_us: 20_000,
        cpu_shares: 1,
        cpuset_cpus: "0-3,7".into(),
        cpuset_mems: "0".into(),
        ..Default::default()
    };
    let cpu = v2(&asked).unwrap().cpu().clone().unwrap();
    assert_eq!((cpu.period(), cpu.quota(), cpu.shares()), (Some(100_000), Some(20_000), Some(2)));
    assert_eq!((cpu.cpus().as_deref(), cpu.mems().as_deref()), (Some("0-3,7"), Some("0")));
    for (period, quota, shares) in
        [(999, 0, 0), (1_000_001, 0, 0), (-1, 0, 0), (0, 999, 0), (0, -2, 0), (0, 0, -1)]
    {
        let asked = Resources {
            cpu_period_us: period,
            cpu_quota_us: quota,
            cpu_shares: shares,
            ..Default::default()
        };
        assert!(matches!(v2(&asked), Err(ResourceError::OutOfRange { .. })), "{asked:?}");
    }
    for set in ["a", "1-", "3-1", ",", "1,", "0 1", "1\n2", "-1", "+1", "65536"] {
        let asked = Resources { cpuset_cpus: set.into(), ..Default::default() };
        assert!(matches!(v2(&asked), Err(ResourceError::CpuSet { .. })), "{set:?}");
    }
}

#[test]
fn swap_follows_memory() {
    let of = |limit, swap| {
        let asked =
            Resources { memory_limit_bytes: limit, memory_swap_limit_bytes: swap, ..Default::default() };
        v2(&asked).map(|linux| linux.memory().map(|memory| (memory.limit(), memory.swap())))
    };
    assert_eq!(of(0, 0), Ok(None));
    assert_eq!(of(100, 0), Ok(Some((Some(100), Some(100)))));
    assert_eq!(of(100, 300), Ok(Some((Some(100), Some(300)))));
    assert_eq!(of(100, -1), Ok(Some((Some(100), Some(-1)))));
    assert_eq!(of(-1, 0), Ok(Some((Some(-1), Some(-1)))));
    assert_eq!(of(100, 99), Err(ResourceError::SwapBelowLimit { swap: 99, limit: 100 }));
    assert!(matches!(of(-2, 0), Err(ResourceError::OutOfRange { field: "memory_limit_in_bytes", .. })));
    assert!(matches!(of(0, -2), Err(ResourceError::OutOfRange { field: "memory_swap_limit_in_bytes", .. })));
}

#[test]
fn huge_pages() {
    let of = |size: &str, limit| {
        let asked = Resources { hugepage_limits: vec![(size.into(), limit)], ..Default::default() };
        v2(&asked).map(|linux| linux.hugepage_limits().clone().map(|pages| pages[0].limit()))
    };
    assert_eq!(of("2MB", 0), Ok(Some(0)));
    assert_eq!(of("2MB", u64::MAX), Ok(Some(i64::MAX)));
    assert_eq!(of("1GB", 0), Ok(None));
    assert_eq!(of("1GB", 1), Err(ResourceError::NoSuchPageSize { page_size: "1GB".into() }));
    for size in ["", "MB", "2", "02MB", "2mb", "../2MB", "2MB/..", "-2MB"] {
        assert_eq!(of(size, 0), Err(ResourceError::PageSize { given: size.into() }));
    }
}

#[test]
fn unified_keys_are_files_of_controllers() {
    let of = |key: &str, value: &str, cgroup| {
        let unified = [(key.to_owned(), value.to_owned())].into();
        to_linux(&Resources { unified, ..Default::default() }, &host(cgroup))
    };
    assert!(of("memory.high", "1000", CgroupVersion::V2).unwrap().unified().is_some());
    assert_eq!(of("memory.high", "1", CgroupVersion::V1), Err(ResourceError::UnifiedOnV1));
    for key in
        ["", "memory", "../memory.high", "a/b.c", "cgroup.procs", "cgroup.kill", ".x", "memory..high", "A.b"]
    {
        assert!(matches!(of(key, "1", CgroupVersion::V2), Err(ResourceError::Unified { .. })), "{key:?}");
    }
    assert!(matches!(of("memory.high", "1\0", CgroupVersion::V2), Err(ResourceError::Unified { .. })));
}

#[test]
fn oom_scores() {
    let of = |score, floor| oom_score_adj(&Resources { oom_score_adj: score, ..Default::default() }, floor);
    assert_eq!(of(0, None), Ok(0));
    assert_eq!(of(-998, None), Ok(-998));
    assert_eq!(of(-998, Some(-500)), Ok(-500));
    assert_eq!(of(1000, Some(-500)), Ok(1000));
    assert!(of(1001, None).is_err());
    assert!(of(i64::MIN, None).is_err());
}

#[test]
fn an_update_takes_the_swap_limit_with_the_memory_limit() {
    let current = Resources {
        memory_limit_bytes: 100,
        memory_swap_limit_bytes: 150,
        cpu_shares: 5,
        ..Default::default()
    };
    let more = Resources { memory_limit_bytes: 200, ..Default::default() };
    let merged = merge(&current, &more);
    assert_eq!((merged.memory_limit_bytes, merged.memory_swap_limit_bytes, merged.cpu_shares), (200, 0, 5));
    assert_eq!(v2(&merged).unwrap().memory().unwrap().swap(), Some(200));
    let swap = Resources { memory_swap_limit_bytes: 400, ..Default::default() };
    assert_eq!(merge(&current, &swap).memory_swap_limit_bytes, 400);
}

#[test]
fn an_update_merges_pages_and_files_by_name() {
    let current = Resources {
        hugepage_limits: vec![("2MB".into(), 1), ("1GB".into(), 2)],
        unified: [("memory.high".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let asked = Resources {
        hugepage_limits: vec![("2MB".into(), 9)],
        unified: [("io.weight".to_owned(), "50".to_owned())].into(),
        ..Default::default()
    };
    let merged = merge(&current, &asked);
    assert_eq!(merged.hugepage_limits, [("2MB".to_owned(), 9), ("1GB".to_owned(), 2)]);
    assert_eq!(merged.unified.len(), 2);
}

proptest! {
    #[test]
    fn an_empty_update_changes_nothing(shares: i64, quota: i64, limit: i64, swap: i64, score: i64) {
        let current = Resources {
            cpu_shares: shares,
            cpu_quota_us: quota,
            memory_limit_bytes: limit,
            memory_swap_limit_bytes: swap,
            oom_score_adj: score,
            ..Default::default()
        };
        prop_assert_eq!(merge(&current, &Resources::default()), current);
    }

    #[test]
    fn merging_twice_is_merging_once(shares in 0i64..9, limit in 0i64..9, swap in 0i64..9, more in 0i64..9) {
        let current = Resources { cpu_shares: shares, memory_swap_limit_bytes: swap, ..Default::default() };
        let asked = Resources { memory_limit_bytes: limit, cpu_quota_us: more, ..Default::default() };
        let once = merge(&current, &asked);
        prop_assert_eq!(merge(&once, &asked), once);
    }
}
