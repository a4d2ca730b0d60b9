//! JSON that no two readers can understand differently: objects without duplicate members and with no member left over, each value with the
//! line it stands on.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct JsonError {
    /// From 1.
    pub line: u32,
    pub why: String,
}

/// One value of a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    raw: &'a RawValue,
    document: &'a str,
}

impl<'a> Node<'a> {
    /// The whole document.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Node<'a>, JsonError> {
        let document = std::str::from_utf8(bytes)
            .map_err(|_| JsonError { line: 1, why: "it is not UTF-8 text".to_owned() })?;
        let raw = serde_json::from_str(document)
            .map_err(|error| JsonError { line: error.line() as u32, why: without_place(&error) })?;
        Ok(Node { raw, document })
    }

    /// The line on which it begins, from 1.
    pub(crate) fn line(&self) -> u32 {
        // The value was borrowed from the document: its address says where in it.
        let offset = (self.raw.get().as_ptr() as usize).saturating_sub(self.document.as_ptr() as usize);
        let before = self.document.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() as u32 + 1
    }

    pub(crate) fn error(&self, why: impl fmt::Display) -> JsonError {
        JsonError { line: self.line(), why: why.to_string() }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.raw.get() == "null"
    }

    pub(crate) fn object(&self) -> Result<Members<'a>, JsonError> {
        if !self.raw.get().starts_with('{') {
            return Err(self.error("an object is expected here"));
        }
        let mut reader = serde_json::Deserializer::from_str(self.raw.get());
        let members = reader.deserialize_map(Pairs).map_err(|error| self.error(without_place(&error)))?;
        let with = |(name, raw)| (name, Node { raw, document: self.document });
        Ok(Members { of: *self, members: members.into_iter().map(with).collect() })
    }

    pub(crate) fn array(&self) -> Result<Vec<Node<'a>>, JsonError> {
        let items: Vec<&'a RawValue> =
            serde_json::from_str(self.raw.get()).map_err(|_| self.error("a list is expected here"))?;
        Ok(items.into_iter().map(|raw| Node { raw, document: self.document }).collect())
    }

    pub(crate) fn string(&self) -> Result<String, JsonError> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.error("a string is expected here"))
    }

    /// A string of standard base64.
    pub(crate) fn base64(&self) -> Result<Vec<u8>, JsonError> {
        use base64::Engine as _;
        let text = self.string()?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|why| self.error(format!("base64 is expected here: {why}")))
    }

    pub(crate) fn integer(&self) -> Result<i64, JsonError> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.error("a whole number is expected here"))
    }
}

/// The members of an object that are not yet taken.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    of: Node<'a>,
    members: Vec<(String, Node<'a>)>,
}

impl<'a> Members<'a> {
    /// The object itself.
    pub(crate) fn node(&self) -> Node<'a> {
        self.of
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let at = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.remove(at).1)
    }

    pub(crate) fn require(&mut self, name: &str) -> Result<Node<'a>, JsonError> {
        self.take(name).ok_or_else(|| self.of.error(format!("the member {name:?} is missing")))
    }

    /// What is left, in the order of the document.
    pub(crate) fn rest(self) -> Vec<(String, Node<'a>)> {
        self.members
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), JsonError> {
        match self.members.first() {
            None => Ok(()),
            Some((name, node)) => Err(node.error(format!("the member {:?} is not known", shorten(name)))),
        }
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs: Vec<(String, &'de RawValue)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!(
                    "the member {:?} is there twice",
                    shorten(&name)
                )));
            }
            pairs.push((name, value));
        }
        Ok(pairs)
    }
}

/// As much of a hostile text as a message may quote.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

/// serde's message without its own idea of the place, which is relative to the value that was read.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let document = b"{\n \"a\": [\n  1,\n  {\"b\":\n   \"x\"}]}";
        let mut top = Node::parse(document).unwrap().object().unwrap();
        let list = top.require("a").unwrap();
        assert_eq!(list.line(), 2);
        let items = list.array().unwrap();
        assert_eq!((items[0].line(), items[0].integer().unwrap()), (3, 1));
        let mut inner = items[1].object().unwrap();
        assert_eq!(inner.node().line(), 4);
        assert_eq!(inner.require("b").unwrap().line(), 5);
        assert_eq!(
            inner.require("c").unwrap_err(),
            JsonError { line: 4, why: "the member \"c\" is missing".into() }
        );
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let object = |text: &'static str| Node::parse(text.as_bytes()).unwrap().object();
        let twice = object("{\"a\": 1,\n \"a\": 2}").unwrap_err();
        assert!(twice.why.contains("\"a\" is there twice"), "{twice}");
        // The same name, spelt otherwise.
        assert!(object(r#"{"a": 1, "\u0061": 2}"#).is_err());
        assert!(object("{\"a\": 1}").unwrap().finish().unwrap_err().why.contains("not known"));
        for text in ["[]", "1", "null", "\"a\""] {
            assert!(object(text).is_err(), "{text}");
        }
        for text in ["", "{} {}", "{\"a\":1,}", "{a:1}", "\u{feff}{}", "/* c */ {}"] {
            assert!(Node::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Node::parse(b"\"\xff\"").is_err());
        assert_eq!(Node::parse(b"{\n\n \"a\": }").unwrap_err().line, 3);
        // As deep as it likes: nothing is read by recursion.
        let deep = "[".repeat(100_000);
        assert!(Node::parse(deep.as_bytes()).is_err());
    }
}
