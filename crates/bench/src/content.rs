//! Contents for the images that are pulled: they pack to about half, as programs and texts do, and are the same in every run.

/// Words that come again and again.
const VOCABULARY: usize = 1024;

/// A source of bytes: words of a vocabulary, some more often than others, and between them runs that nothing predicts.
pub(crate) struct Content {
    state: u64,
    words: Vec<Vec<u8>>,
}

impl Content {
    /// The beginning of the stream with this number.
    pub(crate) fn new(seed: u64) -> Content {
        let mut content = Content { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, words: Vec::new() };
        content.words = (0..VOCABULARY)
            .map(|_| {
                let length = 4 + content.below(16);
                (0..length).map(|_| content.next() as u8).collect()
            })
            .collect();
        content
    }

    /// The next bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 32);
        while bytes.len() < length {
            // The lesser of two: the first words are the frequent ones.
            let word = self.below(VOCABULARY).min(self.below(VOCABULARY));
            bytes.extend_from_slice(&self.words[word]);
            let run = self.next().to_le_bytes();
            bytes.extend_from_slice(&run[..self.below(8)]);
        }
        bytes.truncate(length);
        bytes
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    /// xorshift64.
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::make::{Compression, Layer};

    #[test]
    fn it_packs_to_about_half_and_is_the_same_each_time() {
        let bytes = Content::new(7).bytes(4 << 20);
        assert!(bytes == Content::new(7).bytes(4 << 20));
        let packed = Layer::from_archive(&bytes, Compression::Gzip).packed.len() as f64;
        let ratio = packed / bytes.len() as f64;
        assert!((0.4..0.65).contains(&ratio), "{ratio}");
    }
}
