//! The runtime specification's numbers, which are those of version 1, as version 2 wants them.

use oci_spec::runtime::LinuxRdma;

use crate::error::ApplyError;

/// `cpu.weight` for `cpu.shares`; `None` for 0, which means unset.
///
/// The curve is the one that runc (since 1.3.2) and crun (since 1.23) share: it takes the smallest, the default and the largest
/// number of shares (2, 1024, 262144) to the smallest, the default and the largest weight (1, 100, 10000), and is a parabola
/// between their logarithms. The older straight line gave a container of the default 1024 shares a weight of 39, less than
/// everything beside it.
pub(crate) fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some((10f64.powf(exponent).ceil() as u64).clamp(1, 10_000))
        }
    }
}

/// The number of shares that has the weight `weight` ([`cpu_weight`]); the largest, where several have.
pub(crate) fn cpu_shares(weight: u64) -> u64 {
    let exponent = (weight.clamp(1, 10_000) as f64).log10();
    // The positive root of the parabola: log² + 125·log − 612·(exponent + 7/34) = 0.
    let log = (-125.0 + (125.0f64 * 125.0 + 4.0 * 612.0 * (exponent + 7.0 / 34.0)).sqrt()) / 2.0;
    // A weight is rounded up from its shares, so these are rounded down; but not by what is only a float's error.
    ((log.exp2() + 1e-6).floor() as u64).clamp(2, 262_144)
}

/// `io.weight` (1 to 10000) for `blkio.weight` (10 to 1000), on a straight line; `None` for 0, which means unset.
pub(crate) fn io_weight(weight: u16) -> Option<u64> {
    match weight {
        0 => None,
        _ => Some(1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990),
    }
}

/// What is to be done about swap in version 2, where it is counted alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swap {
    /// Leave it as it is.
    Unchanged,
    /// No limit.
    Unlimited,
    /// Bytes of swap.
    Bytes(u64),
}

/// Swap of version 2 for a limit of memory and a limit of memory and swap together, where -1 is unlimited and 0 or `None` unset.
pub(crate) fn swap(memory: Option<i64>, memory_and_swap: Option<i64>) -> Result<Swap, &'static str> {
    match (memory.unwrap_or(0), memory_and_swap.unwrap_or(0)) {
        (-1, 0) => Ok(Swap::Unlimited),
        (_, 0) => Ok(Swap::Unchanged),
        (_, -1) => Ok(Swap::Unlimited),
        (..-1, _) | (_, ..-1) => Err("is negative and not -1"),
        (-1, both) => Ok(Swap::Bytes(both as u64)),
        (0, _) => Err("needs a memory limit beside it, for it includes memory"),
        (memory, both) if both < memory => Err("is smaller than the memory limit, which it includes"),
        (memory, both) => Ok(Swap::Bytes((both - memory) as u64)),
    }
}

/// -1 as `max`, anything else as it is.
pub(crate) fn or_max(value: i64) -> String {
    if value == -1 { "max".into() } else { value.to_string() }
}

/// Checks the size of huge pages in a file name, as the kernel spells it: `2MB`.
pub(crate) fn check_page_size(size: &str) -> Result<&str, ApplyError> {
    let digits = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
    match digits {
        Some(d) if (1..=8).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()) => Ok(size),
        _ => Err(ApplyError::Invalid {
            field: "hugepageLimits.pageSize",
            value: size.chars().take(100).collect(),
            why: "is not a size such as 64KB, 2MB or 1GB",
        }),
    }
}

/// A line of `rdma.max`.
pub(crate) fn rdma_line(device: &str, limit: &LinuxRdma) -> Result<String, ApplyError> {
    if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(ApplyError::Invalid {
            field: "rdma",
            value: device.chars().take(100).collect(),
            why: "is not the name of a device",
        });
    }
    let mut line = device.to_string();
    for (key, value) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
        if let Some(value) = value {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fixed_points() {
        for (shares, weight) in [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (1024, Some(100)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert_eq!((cpu_shares(1), cpu_shares(100), cpu_shares(10_000)), (2, 1024, 262_144));
        assert_eq!((io_weight(0), io_weight(10), io_weight(1000)), (None, Some(1), Some(10_000)));
        assert_eq!((io_weight(1), io_weight(u16::MAX)), (Some(1), Some(10_000)));
        assert_eq!(swap(Some(100), Some(100)), Ok(Swap::Bytes(0)));
        assert_eq!(swap(Some(-1), None), Ok(Swap::Unlimited));
        assert_eq!(swap(Some(100), None), Ok(Swap::Unchanged));
        assert!(swap(None, Some(100)).is_err());
        assert!(swap(Some(200), Some(100)).is_err());
        assert!(swap(Some(-5), Some(100)).is_err());
    }

    proptest! {
        #[test]
        fn weights_grow_with_shares(a in 1u64..300_000, b in 1u64..300_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(cpu_weight(low) <= cpu_weight(high));
            prop_assert!((1..=10_000).contains(&cpu_weight(a).unwrap()));
        }

        #[test]
        fn a_weight_leads_back_to_shares_of_that_weight(weight in 1u64..=10_000) {
            let shares = cpu_shares(weight);
            prop_assert_eq!(cpu_weight(shares), Some(weight), "{} shares", shares);
        }

        #[test]
        fn io_weights_grow(a in 1u16..2000, b in 1u16..2000) {
            prop_assert!(io_weight(a.min(b)) <= io_weight(a.max(b)));
        }

        #[test]
        fn swap_and_memory_add_up(memory in 1i64..i64::MAX / 2, more in 0i64..i64::MAX / 2) {
            prop_assert_eq!(swap(Some(memory), Some(memory + more)), Ok(Swap::Bytes(more as u64)));
        }
    }
}
