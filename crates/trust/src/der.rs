//! Reading DER (ITU-T X.690), as far as keys and certificates need it: every element whole, with the shortest possible length, or refused.

/// What is left to read of some DER.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Der<'a>(pub(crate) &'a [u8]);

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const SEQUENCE: u8 = 0x30;

impl<'a> Der<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag that comes next.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: its tag and its contents. `None` if there is no whole one.
    pub(crate) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of more than one byte occur in nothing that is read here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x83 => {
                let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                let length = digits.iter().fold(0, |sum, &digit| (sum << 8) | usize::from(digit));
                let shortest = length >= 0x80 && digits[0] != 0;
                shortest.then_some(length)?
            }
            _ => return None,
        };
        let (contents, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, contents))
    }

    /// The contents of the next element, if it has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, contents) = self.next()?;
        (found == tag).then_some(contents)
    }

    /// The only element, if it has this tag and nothing follows.
    pub(crate) fn only(mut self, tag: u8) -> Option<&'a [u8]> {
        let contents = self.expect(tag)?;
        self.is_empty().then_some(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_shortest_form_is_taken() {
        assert_eq!(Der(&[4, 2, 1, 2]).only(OCTET_STRING), Some(&[1, 2][..]));
        assert_eq!(Der(&[4, 2, 1]).only(OCTET_STRING), None);
        assert_eq!(Der(&[4, 2, 1, 2, 3]).only(OCTET_STRING), None);
        assert_eq!(Der(&[4, 0x81, 2, 1, 2]).only(OCTET_STRING), None);
        assert_eq!(Der(&[4, 0x80, 0, 0]).only(OCTET_STRING), None);
        assert_eq!(Der(&[4, 0x82, 0, 0x80]).only(OCTET_STRING), None);
        assert_eq!(Der(&[0x1f, 1, 0]).next(), None);
        let long = [[4, 0x81, 0x80].as_slice(), &[7; 0x80]].concat();
        assert_eq!(Der(&long).only(OCTET_STRING), Some(&[7; 0x80][..]));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_invented(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut der = Der(&bytes);
            while let Some((_, contents)) = der.next() {
                prop_assert!(contents.len() < bytes.len());
            }
        }
    }
}
