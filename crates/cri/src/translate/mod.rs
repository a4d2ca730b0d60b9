//! Between CRI's messages and the words of [`model`]: what is malformed ends here, with the name of the field.

pub mod container;
pub mod filter;
pub mod image;
pub mod metrics;
pub mod namespace;
pub mod pod;
pub mod resources;
pub mod security;
pub mod signal;
pub mod stats;
pub mod status;
pub mod text;

use std::fmt::Display;

/// A field of a request that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadField {
    /// As the message definition spells it, from the request down: `config.metadata.name`.
    pub field: String,
    pub why: String,
}

impl BadField {
    pub fn new(field: impl Into<String>, why: impl Display) -> BadField {
        BadField { field: field.into(), why: why.to_string() }
    }

    /// A message that must be there and is not.
    pub fn missing(field: impl Into<String>) -> BadField {
        BadField::new(field, "it is missing")
    }

    /// The same, seen from the message around it.
    pub fn within(mut self, outer: &str) -> BadField {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl From<BadField> for tonic::Status {
    fn from(bad: BadField) -> Self {
        tonic::Status::invalid_argument(bad.to_string())
    }
}

/// The value of an enum of the protocol, which travels as a number.
pub(crate) fn enumeration<T: TryFrom<i32>>(field: &str, number: i32) -> Result<T, BadField> {
    T::try_from(number).map_err(|_| BadField::new(field, format!("{number} is not a value of this enum")))
}
