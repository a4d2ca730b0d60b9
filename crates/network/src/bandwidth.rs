//! Limits on a pod's traffic, and the annotations that ask for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The annotations the Kubernetes documentation names for traffic shaping.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// The same bounds that the kubelet has: below, a pod is cut off; above, it is no limit.
const MIN_BITS: u64 = 1_000;
const MAX_BITS: u64 = 1_000_000_000_000_000;
/// The burst where nobody asks for one, in bits: a tenth of a second's worth, within these bounds (the upper one is what plugins accept).
const MIN_BURST_BITS: u64 = 1 << 20;
const MAX_BURST_BITS: u64 = i32::MAX as u64;

/// Limits in bits per second, with bursts in bits; 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Into the pod.
    pub ingress_rate: u64,
    pub ingress_burst: u64,
    /// Out of the pod.
    pub egress_rate: u64,
    pub egress_burst: u64,
}

/// An annotation's value is not a bandwidth.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation {annotation}: {value:?} is not a bandwidth between 1k and 1P bits per second, such as \"10M\""
)]
pub struct BadBandwidth {
    pub annotation: &'static str,
    pub value: String,
}

impl Bandwidth {
    /// The limits that a pod's annotations ask for, `None` where they ask for none.
    pub fn from_annotations(
        annotations: &BTreeMap<String, String>,
    ) -> Result<Option<Bandwidth>, BadBandwidth> {
        let rate = |annotation: &'static str| match annotations.get(annotation) {
            None => Ok(0),
            Some(value) => quantity(value)
                .filter(|bits| (MIN_BITS..=MAX_BITS).contains(bits))
                .ok_or_else(|| BadBandwidth { annotation, value: value.clone() }),
        };
        let (ingress_rate, egress_rate) = (rate(INGRESS)?, rate(EGRESS)?);
        if ingress_rate == 0 && egress_rate == 0 {
            return Ok(None);
        }
        let burst = |rate: u64| match rate {
            0 => 0,
            rate => (rate / 10).clamp(MIN_BURST_BITS, MAX_BURST_BITS),
        };
        Ok(Some(Bandwidth {
            ingress_rate,
            ingress_burst: burst(ingress_rate),
            egress_rate,
            egress_burst: burst(egress_rate),
        }))
    }

    /// The value of the capability `bandwidth`: limits that are not set are left out.
    pub(crate) fn to_json(self) -> Value {
        let mut value = json!({});
        if self.ingress_rate != 0 {
            value["ingressRate"] = self.ingress_rate.into();
            value["ingressBurst"] = self.ingress_burst.into();
        }
        if self.egress_rate != 0 {
            value["egressRate"] = self.egress_rate.into();
            value["egressBurst"] = self.egress_burst.into();
        }
        value
    }
}

/// A whole Kubernetes quantity: digits, at most one decimal point, and a suffix of powers of 1000 or 1024.
fn quantity(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 18 || fraction.len() > 9 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let scale = 10u128.pow(fraction.len() as u32);
    u64::try_from((digits(whole)? * scale + digits(fraction)?) * factor / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_become_limits() {
        let of = |pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Bandwidth::from_annotations(&map)
        };
        assert_eq!(of(&[("other", "x")]), Ok(None));
        let limits = of(&[(INGRESS, "10M"), (EGRESS, "1.5Mi")]).unwrap().unwrap();
        assert_eq!((limits.ingress_rate, limits.egress_rate), (10_000_000, 1_572_864));
        assert_eq!((limits.ingress_burst, limits.egress_burst), (MIN_BURST_BITS, MIN_BURST_BITS));
        for bad in ["", "M", "-1M", "10m", "999", "2P", "1..5M", "1e6", "99999999999999999999"] {
            assert!(of(&[(EGRESS, bad)]).is_err(), "{bad}");
        }
    }
}
