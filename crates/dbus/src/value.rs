//! The values that properties have here.

use crate::Writer;

/// A value that says its own type, as variants do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `t`
    U64(u64),
    /// `s`
    Text(String),
    /// `ay`
    Bytes(Vec<u8>),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

impl Value {
    /// Its type.
    pub fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::U64(_) => "t",
            Value::Text(_) => "s",
            Value::Bytes(_) => "ay",
            Value::Texts(_) => "as",
            Value::Numbers(_) => "au",
            Value::Pairs(_) => "a(ss)",
        }
    }

    /// Writes it as a variant, `v`.
    pub fn write(&self, to: &mut Writer) {
        to.signature(self.signature());
        match self {
            Value::Bool(value) => to.u32(u32::from(*value)),
            Value::U64(value) => to.u64(*value),
            Value::Text(text) => to.text(text),
            Value::Bytes(bytes) => to.array(1, |to| to.raw(bytes)),
            Value::Texts(texts) => to.array(4, |to| texts.iter().for_each(|text| to.text(text))),
            Value::Numbers(numbers) => to.array(4, |to| numbers.iter().for_each(|number| to.u32(*number))),
            Value::Pairs(pairs) => to.array(8, |to| {
                for (first, second) in pairs {
                    to.align(8);
                    to.text(first);
                    to.text(second);
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut writer = Writer::new();
        value.write(&mut writer);
        writer.finish()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn values_stand_where_the_specification_has_them() {
        assert_eq!(written(&Value::Bool(true)), b"\x01b\0\0\x01\0\0\0");
        assert_eq!(written(&Value::U64(5)), b"\x01t\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        assert_eq!(written(&Value::Text("ab".into())), b"\x01s\0\0\x02\0\0\0ab\0");
        assert_eq!(written(&Value::Bytes(vec![7])), b"\x02ay\0\x01\0\0\0\x07");
        assert_eq!(written(&Value::Numbers(vec![9])), b"\x02au\0\x04\0\0\0\x09\0\0\0");
        // An empty array of structures has its padding, which does not count.
        assert_eq!(written(&Value::Pairs(Vec::new())), b"\x05a(ss)\0\0\0\0\0\0\0\0\0\0");
        let pair = Value::Pairs(vec![("a".into(), "b".into())]);
        assert_eq!(written(&pair)[8..], *b"\x0e\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0");
    }
}
