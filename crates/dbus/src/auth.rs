//! Who we are: the mechanism EXTERNAL, by which the kernel answers for the number of the user ("Authentication Protocol").

/// What is said first, in one go: a zero byte, the claim to be the user `uid`, and, without waiting for the answer, that messages follow.
pub fn greeting(uid: u32) -> Vec<u8> {
    let hex: String = uid.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").into_bytes()
}

/// Whether this line, which is the answer to the greeting, lets us in.
pub fn is_accepted(line: &[u8]) -> bool {
    line == b"OK" || line.starts_with(b"OK ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_said_in_hexadecimal_digits_of_its_digits() {
        assert_eq!(greeting(0), b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n");
        assert_eq!(greeting(1000), b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n");
        assert!(is_accepted(b"OK 1234deadbeef"));
        assert!(!is_accepted(b"REJECTED EXTERNAL") && !is_accepted(b"OKAY") && !is_accepted(b""));
    }
}
