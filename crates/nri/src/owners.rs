//! Which plugin set which field of a container, so that no two set the same.

use crate::api::{CompoundFieldOwners, Field, FieldOwners, OwningPlugins};
use crate::error::Refusal;

/// The mark of what is to be removed: before a key, or before the name of the plugin that removed somebody else's.
const REMOVAL: char = '-';

/// A key, and whether it is marked for removal.
pub(crate) fn unmarked(key: &str) -> (&str, bool) {
    key.strip_prefix(REMOVAL).map_or((key, false), |key| (key, true))
}

/// The key with the mark.
pub(crate) fn marked(key: &str) -> String {
    format!("{REMOVAL}{key}")
}

/// The owners of the fields of all containers that one request touches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owners(OwningPlugins);

impl Owners {
    /// The message that validators get.
    pub(crate) fn message(&self) -> OwningPlugins {
        self.0.clone()
    }

    fn of(&mut self, container: &str) -> &mut FieldOwners {
        self.0.owners.entry(container.to_owned()).or_default()
    }

    fn entries(&mut self, container: &str, field: Field) -> &mut CompoundFieldOwners {
        self.of(container).compound.entry(field.into()).or_default()
    }

    /// Makes `plugin` the owner of a field, or of the entry `key` of it.
    ///
    /// # Errors
    /// The field has an owner, who did not give it up to this plugin.
    pub(crate) fn claim(
        &mut self,
        container: &str,
        field: Field,
        key: Option<&str>,
        plugin: &str,
    ) -> Result<(), Refusal> {
        let owner = match key {
            None => self.of(container).simple.entry(field.into()).or_default(),
            Some(key) => self.entries(container, field).owners.entry(key.to_owned()).or_default(),
        };
        let (other, removed) = unmarked(owner);
        if other.is_empty() || (removed && other == plugin) {
            *owner = plugin.to_owned();
            return Ok(());
        }
        Err(Refusal::Conflict {
            plugin: plugin.to_owned(),
            other: other.to_owned(),
            field: key
                .map_or_else(|| field.as_str_name().into(), |key| format!("{} {key}", field.as_str_name())),
            container: container.to_owned(),
        })
    }

    /// Notes that `plugin` took away what another had set, and may set it anew.
    pub(crate) fn clear(&mut self, container: &str, field: Field, key: Option<&str>, plugin: &str) {
        let owner = match key {
            None => self.of(container).simple.get_mut(&field.into()),
            Some(key) => self.entries(container, field).owners.get_mut(key),
        };
        if let Some(owner) = owner {
            *owner = marked(plugin);
        }
    }

    /// Adds `plugin` to those who own a field together.
    pub(crate) fn join(&mut self, container: &str, field: Field, plugin: &str) {
        let owners = self.of(container).simple.entry(field.into()).or_default();
        if !owners.is_empty() {
            owners.push(',');
        }
        owners.push_str(plugin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_one_owner_unless_it_was_removed() {
        let mut owners = Owners::default();
        owners.claim("c", Field::Env, Some("A"), "10-a").unwrap();
        owners.claim("c", Field::Env, Some("B"), "20-b").unwrap();
        owners.claim("d", Field::Env, Some("A"), "20-b").unwrap();
        let refused = owners.claim("c", Field::Env, Some("A"), "20-b").unwrap_err();
        let words = "NRI plugins \"20-b\" and \"10-a\" both set Env A of container c";
        assert_eq!(refused.to_string(), words);
        owners.clear("c", Field::Env, Some("A"), "20-b");
        assert!(owners.claim("c", Field::Env, Some("A"), "30-c").is_err());
        owners.claim("c", Field::Env, Some("A"), "20-b").unwrap();

        owners.claim("c", Field::MemLimit, None, "10-a").unwrap();
        assert!(owners.claim("c", Field::MemLimit, None, "20-b").is_err());
        owners.join("c", Field::OciHooks, "10-a");
        owners.join("c", Field::OciHooks, "20-b");
        let message = owners.message();
        assert_eq!(message.owners["c"].simple[&(Field::OciHooks as i32)], "10-a,20-b");
        assert_eq!(message.owners["c"].compound[&(Field::Env as i32)].owners["A"], "20-b");
    }
}
