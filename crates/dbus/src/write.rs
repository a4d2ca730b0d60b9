//! Writing values as the wire has them ("Marshaling").

/// A body, or a part of a message, in the making. Its first byte stands at a multiple of eight.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing yet.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Fills up with zeros to a multiple of `alignment`.
    pub fn align(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A byte, `y`.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// `u`.
    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.raw(&value.to_ne_bytes());
    }

    /// `t`.
    pub fn u64(&mut self, value: u64) {
        self.align(8);
        self.raw(&value.to_ne_bytes());
    }

    /// A string, `s`, or an object's path, `o`. There is no zero byte in a string of D-Bus: what follows one is left out.
    pub fn text(&mut self, value: &str) {
        let value = value.split('\0').next().unwrap_or_default();
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.raw(value.as_bytes());
        self.byte(0);
    }

    /// The signature of types, `g`; it is shorter than 256 bytes.
    pub fn signature(&mut self, value: &str) {
        self.byte(u8::try_from(value.len()).unwrap_or(u8::MAX));
        self.raw(value.as_bytes());
        self.byte(0);
    }

    /// An array whose elements begin at multiples of `alignment`, and are written by `elements`.
    pub fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        // The way to the first element does not count.
        self.align(alignment);
        let begin = self.bytes.len();
        elements(self);
        let length = u32::try_from(self.bytes.len() - begin).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
    }
}
