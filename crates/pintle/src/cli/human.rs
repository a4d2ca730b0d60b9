//! Sizes, times and ages as people read and write them.

use jiff::Timestamp;
use std::time::Duration;

/// Bytes with a decimal unit and three digits, as `docker images` shows them: `1.24 MB`.
pub(crate) fn decimal_bytes(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Bytes with a binary unit and three digits, as memory is counted: `1.24 MiB`.
pub(crate) fn binary_bytes(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

fn scaled(bytes: u64, base: f64, units: &[&str]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 and not the base: three digits must stay three digits after rounding.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let unit = units[unit];
    match value {
        _ if unit == "B" => format!("{bytes} B"),
        value if value < 9.995 => format!("{value:.2} {unit}"),
        value if value < 99.95 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// How long ago a CRI time (nanoseconds since 1970; 0 means never) was.
pub(crate) fn ago(nanos: i64, now: Timestamp) -> String {
    if nanos == 0 {
        return "-".into();
    }
    let seconds = now.as_second().saturating_sub(nanos / 1_000_000_000).max(0) as u64;
    format!("{} ago", span(seconds))
}

/// Seconds in the one unit that says enough: `45 seconds`, `3 minutes`, `2 days`.
pub(crate) fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        s if s < 60 => (s, "second"),
        s if s < 3600 => (s / 60, "minute"),
        s if s < 48 * 3600 => (s / 3600, "hour"),
        s if s < 14 * 86400 => (s / 86400, "day"),
        s if s < 730 * 86400 => (s / (7 * 86400), "week"),
        s => (s / (365 * 86400), "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// A CRI time as RFC 3339, or `None` for the zero that means never.
pub(crate) fn rfc3339(nanos: i64) -> Option<String> {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).ok()?;
    (nanos != 0).then(|| format!("{time:.9}"))
}

/// A measured time with the unit that keeps it short: `0.8 ms`, `12 ms`, `1.25 s`.
pub(crate) fn took(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// Reads bytes as `docker run --memory` does: a number with an optional unit of powers of 1024 (`64m`, `1.5GiB`, `512k`, `1048576`).
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a size; write it like 64m, 1.5g or 1048576 (bytes)");
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    let bytes = number * (1_u64 << shift) as f64;
    if bytes.is_finite() && (1.0..=i64::MAX as f64 / 2.0).contains(&bytes) {
        Ok(bytes as i64)
    } else {
        Err(bad())
    }
}

/// Reads a span of time: `90` (seconds), `1.5s`, `10m`, `2h30m`, `3d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time; write it like 30s, 10m, 2h30m or 3d");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * scale;
        rest = tail;
    }
    if text.is_empty() { Err(bad()) } else { Duration::try_from_secs_f64(total).map_err(|_| bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_keep_three_digits() {
        let shown =
            [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1_234_567, "1.23 MB"), (999_950, "1.00 MB")];
        for (bytes, text) in shown {
            assert_eq!(decimal_bytes(bytes), text);
        }
        assert_eq!(binary_bytes(1536), "1.50 KiB");
        assert_eq!(binary_bytes(100 << 20), "100 MiB");
        assert_eq!(binary_bytes(1010 << 20), "0.99 GiB");
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        assert_eq!(parse_bytes("64m"), Ok(64 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("1048576"), Ok(1 << 20));
        for bad in ["", "m", "12q", "-1m", "0", "1e400", "nan", "inf"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h30m"), Ok(Duration::from_secs(9000)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "m", "1x", "5m3", "1..2s", "-1s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages_name_one_unit() {
        assert_eq!(span(1), "1 second");
        assert_eq!(span(119), "1 minute");
        assert_eq!(span(3 * 86400), "3 days");
        assert_eq!(ago(0, Timestamp::UNIX_EPOCH), "-");
    }

    #[test]
    fn a_time_of_the_future_is_not_negative() {
        assert_eq!(ago(5_000_000_000, Timestamp::UNIX_EPOCH), "0 seconds ago");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,20}") {
            let _ = parse_bytes(&text);
            let _ = parse_duration(&text);
        }
    }
}
