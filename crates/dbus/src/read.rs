//! Reading values from bytes that somebody else wrote ("Marshaling").

/// Bytes that are no message of D-Bus, or not one that is understood here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message of D-Bus: {what} (at byte {at})")]
pub struct BadMessage {
    /// What is wrong.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

/// Goes through bytes whose first stands at a multiple of eight.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    /// Begins; `little`: the writer's lowest byte comes first.
    pub fn new(bytes: &'a [u8], little: bool) -> Reader<'a> {
        Reader { bytes, at: 0, little }
    }

    /// Whether all was read.
    pub fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Skips what fills up to a multiple of `alignment`, which are zeros.
    pub fn align(&mut self, alignment: usize) -> Result<(), BadMessage> {
        let padding = self.at.next_multiple_of(alignment) - self.at;
        match self.take(padding)?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(self.bad("padding that is not zero")),
        }
    }

    /// `y`.
    pub fn byte(&mut self) -> Result<u8, BadMessage> {
        Ok(self.take(1)?[0])
    }

    /// `u`.
    pub fn u32(&mut self) -> Result<u32, BadMessage> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().map_err(|_| self.bad("a number is cut off"))?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// A string, `s`, or an object's path, `o`.
    pub fn text(&mut self) -> Result<&'a str, BadMessage> {
        let length = self.u32()?;
        self.zero_ended(length as usize)
    }

    /// A signature, `g`.
    pub fn signature(&mut self) -> Result<&'a str, BadMessage> {
        let length = self.byte()?;
        self.zero_ended(usize::from(length))
    }

    /// The bytes of an array whose elements begin at multiples of `alignment`; a reader of them. Only for alignments that divide eight.
    pub fn array(&mut self, alignment: usize) -> Result<Reader<'a>, BadMessage> {
        let length = self.u32()? as usize;
        self.align(alignment)?;
        let begin = self.at;
        self.take(length)?;
        // Alignment counts from the beginning of the message.
        Ok(Reader { bytes: &self.bytes[..begin + length], at: begin, little: self.little })
    }

    fn zero_ended(&mut self, length: usize) -> Result<&'a str, BadMessage> {
        let text = self.take(length)?;
        if self.byte()? != 0 || text.contains(&0) {
            return Err(self.bad("a string does not end with its only zero byte"));
        }
        std::str::from_utf8(text).map_err(|_| self.bad("a string is not UTF-8"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BadMessage> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.bad("it ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn bad(&self, what: &'static str) -> BadMessage {
        BadMessage { what, at: self.at }
    }
}
