//! TOML files of others: typed access whose errors name the line. Pure.

use std::borrow::Cow;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::RouteError;
use crate::place::Place;

pub(super) type Key<'i> = Spanned<Cow<'i, str>>;
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A file's name and text, for the places in it.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl<'a> Text<'a> {
    pub(super) fn new(file: &'a Path, bytes: &'a [u8]) -> Result<Text<'a>, RouteError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Text { file, text: text.strip_prefix('\u{feff}').unwrap_or(text) }),
            Err(error) => {
                Err(RouteError::wrong(Place::at(file, bytes, error.valid_up_to()), "this line is not UTF-8"))
            }
        }
    }

    pub(super) fn parse(self) -> Result<DeTable<'a>, RouteError> {
        DeTable::parse(self.text).map(Spanned::into_inner).map_err(|error| {
            let place = Place::at(self.file, self.text.as_bytes(), error.span().map_or(0, |span| span.start));
            RouteError::wrong(place, error.message().trim().replace('\n', ", "))
        })
    }

    pub(super) fn place<T>(self, of: &Spanned<T>) -> Place {
        Place::at(self.file, self.text.as_bytes(), of.span().start)
    }

    fn wrong<T>(self, of: &Spanned<T>, key: &str, takes: &str) -> RouteError {
        RouteError::wrong(self.place(of), format!("{key} takes {takes}"))
    }

    pub(super) fn string<'v>(self, key: &str, value: &'v Value<'_>) -> Result<&'v str, RouteError> {
        value.get_ref().as_str().ok_or_else(|| self.wrong(value, key, "a text"))
    }

    pub(super) fn boolean(self, key: &str, value: &Value<'_>) -> Result<bool, RouteError> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong(value, key, "true or false"))
    }

    pub(super) fn array<'v, 'i>(
        self,
        key: &str,
        value: &'v Value<'i>,
    ) -> Result<&'v DeArray<'i>, RouteError> {
        value.get_ref().as_array().ok_or_else(|| self.wrong(value, key, "a list"))
    }

    pub(super) fn table<'v, 'i>(
        self,
        key: &str,
        value: &'v Value<'i>,
    ) -> Result<&'v DeTable<'i>, RouteError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong(value, key, "a table"))
    }

    /// A list of texts.
    pub(super) fn strings<'v>(self, key: &str, value: &'v Value<'_>) -> Result<Vec<&'v str>, RouteError> {
        self.array(key, value)?.iter().map(|one| self.string(key, one)).collect()
    }

    /// One text, or a list of them.
    pub(super) fn one_or_more<'v>(self, key: &str, value: &'v Value<'_>) -> Result<Vec<&'v str>, RouteError> {
        match value.get_ref() {
            DeValue::String(one) => Ok(vec![one.as_ref()]),
            DeValue::Array(_) => self.strings(key, value),
            _ => Err(self.wrong(value, key, "a text or a list of texts")),
        }
    }
}

/// The entries as the file has them; the map sorts them by name.
pub(super) fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Key<'i>, &'a Value<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
