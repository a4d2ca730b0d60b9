//! A gzip stream of any number of members, and what may follow the last.
//!
//! RFC 1952 makes members that stand one after the other one stream; eStargz has one for each file. Behind the last there may be zeros,
//! with which tapes and some tools fill a block. Anything else there is an error, as for Go's reader and unlike for gzip(1), which
//! ignores it: a layer is what its whole blob says.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The unpacked bytes of all members.
pub(super) struct Members<R: BufRead> {
    /// None only while one member's decoder is exchanged for the next one's.
    member: Option<GzDecoder<R>>,
    ended: bool,
}

impl<R: BufRead> Members<R> {
    pub(super) fn new(packed: R) -> Members<R> {
        Members { member: Some(GzDecoder::new(packed)), ended: false }
    }

    pub(super) fn packed(&self) -> Option<&R> {
        self.member.as_ref().map(GzDecoder::get_ref)
    }

    pub(super) fn into_packed(self) -> Option<R> {
        self.member.map(GzDecoder::into_inner)
    }

    /// Whether there is another member behind the one that has just ended.
    fn begin_next(&mut self) -> io::Result<bool> {
        let Some(member) = &mut self.member else { return Ok(false) };
        let packed = member.get_mut();
        match packed.fill_buf()?.first() {
            None => return Ok(false),
            Some(0) => return skip_zeros(packed).map(|()| false),
            Some(_) => {}
        }
        self.member = self.member.take().map(|member| GzDecoder::new(member.into_inner()));
        Ok(true)
    }
}

fn skip_zeros(packed: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = packed.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|&byte| byte != 0) {
            return Err(io::Error::other("there is something behind the end of the gzip stream"));
        }
        let length = bytes.len();
        packed.consume(length);
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            let Some(member) = &mut self.member else { break };
            let read = member.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.ended = !self.begin_next()?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        // A small buffer, so that ends of members fall on its ends.
        Members::new(io::BufReader::with_capacity(7, bytes)).read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn members_are_one_stream_and_zeros_may_follow() {
        let two = [packed(b"first"), packed(b""), packed(b"second")].concat();
        assert_eq!(unpacked(&two).unwrap(), b"firstsecond");
        let padded = [two.as_slice(), &[0; 1000]].concat();
        assert_eq!(unpacked(&padded).unwrap(), b"firstsecond");
    }

    #[test]
    fn nothing_else_may_follow() {
        for rest in [&b"x"[..], b"\0\0x", b"\x1f", b"\x1f\x8bgarbage"] {
            let bytes = [packed(b"first").as_slice(), rest].concat();
            assert!(unpacked(&bytes).is_err(), "{rest:?}");
        }
    }

    #[test]
    fn a_cut_or_damaged_member_is_an_error() {
        let whole = packed(&[7; 3000]);
        for end in 1..whole.len() {
            assert!(unpacked(&whole[..end]).is_err(), "{end}");
        }
        let mut damaged = whole.clone();
        let checksum = damaged.len() - 6;
        damaged[checksum] ^= 1;
        assert!(unpacked(&damaged).is_err());
    }
}
