//! Names without a registry, such as `busybox`: what they stand for, after containers-registries.conf(5), "short-name aliasing". Pure.

use model::reference::ImageReference;

use super::error::RouteError;
use crate::place::Place;

/// What is said of short names.
#[derive(Debug, Clone, Default)]
pub struct ShortNames {
    pub aliases: Vec<Alias>,
    /// The registries to look in, and where that is said.
    pub search: Option<(Vec<String>, Place)>,
    pub mode: Option<ShortNameMode>,
}

/// A short name and the repository it stands for; empty: it stands for none.
#[derive(Debug, Clone)]
pub struct Alias {
    pub name: String,
    pub target: String,
    pub place: Place,
}

/// What is done with a short name that is to be looked for in several registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortNameMode {
    /// It is refused, since a daemon has nobody to ask.
    Enforcing,
    /// All are tried, in their order.
    Permissive,
    /// As permissive: the original differs only where there is somebody to ask.
    Disabled,
}

impl ShortNameMode {
    pub(super) fn parse(text: &str) -> Option<ShortNameMode> {
        match text {
            "enforcing" => Some(ShortNameMode::Enforcing),
            "permissive" => Some(ShortNameMode::Permissive),
            "disabled" => Some(ShortNameMode::Disabled),
            _ => None,
        }
    }
}

impl ShortNames {
    /// Whether a name does not begin with a registry.
    pub fn is_short(name: &str) -> bool {
        match name.split_once('/') {
            Some((first, _)) => !first.contains(['.', ':']) && !first.eq_ignore_ascii_case("localhost"),
            None => true,
        }
    }

    /// The references that a short name stands for, and who says so. Nothing: it is no short name, or nothing is said of it, so that it is
    /// one of Docker Hub.
    ///
    /// # Errors
    /// [`RouteError::SeveralRegistries`], or that a part of the name is wrong.
    pub fn resolve(&self, text: &str) -> Result<Vec<(ImageReference, Place)>, RouteError> {
        if !ShortNames::is_short(text) {
            return Ok(Vec::new());
        }
        let end = text.find(['@', ':']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        // What is no name at all is told by what it is, and not by what it would become.
        ImageReference::parse(text)?;
        if let Some(alias) = self.aliases.iter().rfind(|alias| alias.name == name)
            && !alias.target.is_empty()
        {
            let reference = ImageReference::parse(&format!("{}{rest}", alias.target))?;
            return Ok(vec![(reference, alias.place.clone())]);
        }
        let Some((hosts, place)) = &self.search else { return Ok(Vec::new()) };
        if hosts.len() > 1 && self.mode == Some(ShortNameMode::Enforcing) {
            return Err(RouteError::SeveralRegistries { name: name.to_owned(), place: place.clone() });
        }
        let whole = |host: &String| {
            let reference = ImageReference::parse(&format!("{host}/{text}"))?;
            Ok((reference, place.clone()))
        };
        hosts.iter().map(whole).collect()
    }

    pub(super) fn merge(&mut self, later: ShortNames) {
        for alias in later.aliases {
            self.aliases.retain(|known| known.name != alias.name);
            self.aliases.push(alias);
        }
        // An empty list says nothing, as in the original.
        let said = later.search.filter(|(hosts, _)| !hosts.is_empty());
        self.search = said.or(self.search.take());
        self.mode = later.mode.or(self.mode);
    }
}
