//! Signals by name, as images and people write them. See signal(7).

/// Names of Linux's signals, by number, for the machines that count them as x86 and ARM do.
const NAMES: [(&str, u8); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first real-time signal that programs may use; the C library keeps 32 and 33.
pub const RTMIN: u8 = 34;
pub const RTMAX: u8 = 64;

/// The number of a signal: `15`, `TERM`, `SIGTERM`, `rtmin+3`, `SIGRTMAX-1`. None for what is no signal.
pub fn parse(text: &str) -> Option<u8> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, '+')?.checked_add(RTMIN).filter(|number| *number <= RTMAX);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return RTMAX.checked_sub(offset(rest, '-')?).filter(|number| *number >= RTMIN);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of a signal, with `SIG`; none for a number that is no signal.
pub fn name(number: u8) -> Option<String> {
    match number {
        RTMIN => Some("SIGRTMIN".into()),
        RTMAX => Some("SIGRTMAX".into()),
        35..=49 => Some(format!("SIGRTMIN+{}", number - RTMIN)),
        50..=63 => Some(format!("SIGRTMAX-{}", RTMAX - number)),
        _ => NAMES.iter().find(|(_, known)| *known == number).map(|(name, _)| format!("SIG{name}")),
    }
}

fn offset(text: &str, sign: char) -> Option<u8> {
    match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("15", Some(15)),
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigterm", Some(15)),
            ("SIGRTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGIOT", Some(6)),
            ("0", None),
            ("65", None),
            ("300", None),
            ("", None),
            ("SIG", None),
            ("RTMIN+31", None),
            ("RTMIN-1", None),
            ("RTMAX-31", None),
            ("RTMIN++1", None),
            ("-15", None),
            ("TERM ", None),
        ] {
            assert_eq!(parse(text), number, "{text:?}");
        }
    }

    #[test]
    fn every_name_leads_back() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            assert_eq!(name(number).as_deref().and_then(parse), Some(number));
        }
        assert_eq!((name(0), name(32), name(65)), (None, None, None));
    }
}
