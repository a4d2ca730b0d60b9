//! Messages: calls are written, answers and signals are read ("Message Format").

use crate::{BadMessage, Reader, Writer};

/// Of a message, enough to know how long it is ([`length`]).
pub const HEAD_BYTES: usize = 16;

/// No message that is of any use here comes near this; the specification allows 128 MiB.
pub const LARGEST: usize = 1 << 20;

const VERSION: u8 = 1;
const OWN_ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// A method call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The service's name; none where the other end of the connection is the service itself.
    pub destination: Option<&'a str>,
    /// The object.
    pub path: &'a str,
    /// Where the method is declared.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// The types of `body`, one after the other.
    pub signature: &'a str,
    /// The arguments, written by a [`Writer`].
    pub body: &'a [u8],
}

impl Call<'_> {
    /// The whole message. `serial` is not zero, and names it in its answer.
    pub fn write(&self, serial: u32) -> Vec<u8> {
        let mut to = Writer::new();
        to.raw(&[OWN_ORDER, Kind::CALL, 0, VERSION]);
        to.u32(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        to.u32(serial);
        to.array(8, |to| {
            let mut field = |code: u8, kind: &str, value: &str| {
                to.align(8);
                to.byte(code);
                to.signature(kind);
                if kind == "g" { to.signature(value) } else { to.text(value) }
            };
            field(Field::PATH, "o", self.path);
            field(Field::INTERFACE, "s", self.interface);
            field(Field::MEMBER, "s", self.member);
            if let Some(destination) = self.destination {
                field(Field::DESTINATION, "s", destination);
            }
            if !self.signature.is_empty() {
                field(Field::SIGNATURE, "g", self.signature);
            }
        });
        to.align(8);
        to.raw(self.body);
        to.finish()
    }
}

/// The codes of what stands in a header.
struct Field;

impl Field {
    const PATH: u8 = 1;
    const INTERFACE: u8 = 2;
    const MEMBER: u8 = 3;
    const ERROR_NAME: u8 = 4;
    const REPLY_SERIAL: u8 = 5;
    const DESTINATION: u8 = 6;
    const SENDER: u8 = 7;
    const SIGNATURE: u8 = 8;
}

struct Kind;

impl Kind {
    const CALL: u8 = 1;
    const RETURN: u8 = 2;
    const ERROR: u8 = 3;
    const SIGNAL: u8 = 4;
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind<'a> {
    /// Somebody calls us.
    Call,
    /// The answer to our message of this serial.
    Return {
        /// Which.
        to: u32,
    },
    /// The refusal of our message of this serial.
    Error {
        /// Which.
        to: u32,
        /// The error's name, such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: &'a str,
    },
    /// Something happened.
    Signal {
        /// Where the signal is declared.
        interface: &'a str,
        /// The signal.
        member: &'a str,
    },
    /// A kind that may come to exist; to be ignored.
    Other,
}

/// A message that was read.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// What it is.
    pub kind: MessageKind<'a>,
    /// Who sent it, as the bus says; none on a direct connection.
    pub sender: Option<&'a str>,
    /// The types of its arguments.
    pub signature: &'a str,
    /// Its arguments.
    pub body: Reader<'a>,
}

/// How long the message is that begins with `head`.
///
/// # Errors
/// It is no message, or longer than [`LARGEST`].
pub fn length(head: &[u8; HEAD_BYTES]) -> Result<usize, BadMessage> {
    let mut reader = Reader::new(head, is_little(head[0])?);
    let (_order, kind, _flags, version) = (reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?);
    if kind == 0 || version != VERSION {
        return Err(BadMessage { what: "its kind or version is unknown", at: 1 });
    }
    let (body, _serial, fields) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let header = (fields as usize).checked_add(HEAD_BYTES).and_then(|all| all.checked_next_multiple_of(8));
    header
        .and_then(|header| header.checked_add(body as usize))
        .filter(|all| *all <= LARGEST)
        .ok_or(BadMessage { what: "it is longer than a mebibyte", at: 4 })
}

fn is_little(order: u8) -> Result<bool, BadMessage> {
    match order {
        b'l' => Ok(true),
        b'B' => Ok(false),
        _ => Err(BadMessage { what: "it begins with no byte order", at: 0 }),
    }
}

/// What stands in a header and counts here.
#[derive(Default)]
struct Header<'a> {
    interface: Option<&'a str>,
    member: Option<&'a str>,
    error_name: Option<&'a str>,
    reply_serial: Option<u32>,
    sender: Option<&'a str>,
    signature: &'a str,
}

impl<'a> Message<'a> {
    /// Reads a whole message, as long as [`length`] says.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &'a [u8]) -> Result<Message<'a>, BadMessage> {
        let head = bytes.first_chunk().ok_or(BadMessage { what: "it ends too early", at: 0 })?;
        if length(head)? != bytes.len() {
            return Err(BadMessage { what: "its length is not what it says", at: 4 });
        }
        let little = is_little(bytes[0])?;
        let mut reader = Reader::new(bytes, little);
        let (_order, kind) = (reader.byte()?, reader.byte()?);
        let (_flags, _version) = (reader.byte()?, reader.byte()?);
        let (body_length, _serial) = (reader.u32()? as usize, reader.u32()?);
        let header = Header::read(reader.array(8)?)?;
        let at = bytes.len() - body_length;
        let missing = |what| BadMessage { what, at };
        let to = || header.reply_serial.ok_or_else(|| missing("an answer does not say to what"));
        let kind = match kind {
            Kind::CALL => MessageKind::Call,
            Kind::RETURN => MessageKind::Return { to: to()? },
            Kind::ERROR => MessageKind::Error {
                to: to()?,
                name: header.error_name.ok_or_else(|| missing("an error has no name"))?,
            },
            Kind::SIGNAL => MessageKind::Signal {
                interface: header.interface.ok_or_else(|| missing("a signal has no interface"))?,
                member: header.member.ok_or_else(|| missing("a signal has no name"))?,
            },
            _ => MessageKind::Other,
        };
        let body = Reader::new(&bytes[at..], little);
        Ok(Message { kind, sender: header.sender, signature: header.signature, body })
    }
}

impl<'a> Header<'a> {
    fn read(mut fields: Reader<'a>) -> Result<Header<'a>, BadMessage> {
        let mut header = Header::default();
        while !fields.is_done() {
            fields.align(8)?;
            let (code, kind) = (fields.byte()?, fields.signature()?);
            match (code, kind) {
                (Field::INTERFACE, "s") => header.interface = Some(fields.text()?),
                (Field::MEMBER, "s") => header.member = Some(fields.text()?),
                (Field::ERROR_NAME, "s") => header.error_name = Some(fields.text()?),
                (Field::SENDER, "s") => header.sender = Some(fields.text()?),
                (Field::SIGNATURE, "g") => header.signature = fields.signature()?,
                (Field::REPLY_SERIAL, "u") => header.reply_serial = Some(fields.u32()?),
                // What is not known is skipped, as far as its type is.
                (_, "s" | "o") => drop(fields.text()?),
                (_, "g") => drop(fields.signature()?),
                (_, "u") => drop(fields.u32()?),
                _ => return Err(fields.bad("a field of its header has an unknown type")),
            }
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer, as a service of either byte order writes it.
    fn answer(little: bool, fields: &[(u8, &str, &str)], body: &[u8]) -> Vec<u8> {
        let number = |value: usize| {
            let value = u32::try_from(value).unwrap();
            if little { value.to_le_bytes() } else { value.to_be_bytes() }
        };
        let mut header = Vec::new();
        for (code, kind, value) in fields {
            header.resize(header.len().next_multiple_of(8), 0);
            header.extend([*code, 1, kind.as_bytes()[0], 0]);
            match *kind {
                "u" => header.extend(number(value.parse().unwrap())),
                "g" => header.push(u8::try_from(value.len()).unwrap()),
                _ => header.extend(number(value.len())),
            }
            if *kind != "u" {
                header.extend(value.as_bytes());
                header.push(0);
            }
        }
        let kind = if fields.iter().any(|(code, ..)| *code == Field::ERROR_NAME) { 3 } else { 2 };
        let mut bytes = vec![if little { b'l' } else { b'B' }, kind, 0, 1];
        bytes.extend(number(body.len()));
        bytes.extend(number(77));
        bytes.extend(number(header.len()));
        bytes.extend(header);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn answers_of_both_byte_orders_are_read() {
        let fields =
            [(Field::REPLY_SERIAL, "u", "4"), (Field::SENDER, "s", ":1.0"), (Field::SIGNATURE, "g", "o")];
        for little in [true, false] {
            let length: [u8; 4] = if little { 2u32.to_le_bytes() } else { 2u32.to_be_bytes() };
            let body = [&length[..], b"/x\0"].concat();
            let bytes = answer(little, &fields, &body);
            let mut message = Message::read(&bytes).unwrap();
            assert_eq!(message.kind, MessageKind::Return { to: 4 });
            assert_eq!((message.sender, message.signature), (Some(":1.0"), "o"));
            assert_eq!(message.body.text(), Ok("/x"));
            assert!(message.body.is_done());
        }
    }

    #[test]
    fn what_lacks_its_parts_is_refused() {
        assert!(Message::read(&answer(true, &[], b"")).is_err(), "to what?");
        assert!(Message::read(&answer(true, &[(Field::ERROR_NAME, "s", "e")], b"")).is_err(), "to what?");
        let (reply, unknown) = ((Field::REPLY_SERIAL, "u", "4"), (200, "s", "x"));
        assert!(Message::read(&answer(true, &[unknown, reply], b"")).is_ok(), "an unknown field is skipped");
        assert!(Message::read(&answer(true, &[(200, "v", "x"), reply], b"")).is_err(), "its type too");
        let mut long = answer(true, &[(Field::REPLY_SERIAL, "u", "4")], b"");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(length(long.first_chunk().unwrap()).is_err(), "an unreasonable length");
        long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(length(long.first_chunk().unwrap()).is_err(), "and a sum that is too large for a number");
    }

    #[test]
    fn a_call_has_the_length_that_it_says() {
        let mut body = Writer::new();
        body.text("a.scope");
        let body = body.finish();
        let call = Call {
            destination: Some("org.freedesktop.systemd1"),
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StopUnit",
            signature: "s",
            body: &body,
        };
        let bytes = call.write(9);
        assert_eq!(length(bytes.first_chunk().unwrap()), Ok(bytes.len()));
        let message = Message::read(&bytes).unwrap();
        assert_eq!((message.kind, message.signature), (MessageKind::Call, "s"));
        assert_eq!(message.body.clone().text(), Ok("a.scope"));
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::read(&bytes);
        }

        #[test]
        fn a_message_with_other_bytes_in_it_gets_an_answer(at in 0usize..90, byte in any::<u8>()) {
            let fields = [(Field::REPLY_SERIAL, "u", "4"), (Field::SENDER, "s", ":1.0"), (Field::SIGNATURE, "g", "s")];
            let mut bytes = answer(true, &fields, b"\x02\0\0\0ab\0");
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(mut message) = Message::read(&bytes) {
                let _ = message.body.text();
            }
        }
    }
}
