//! Digest pinning: scopes in which an image must be asked for by digest, since a tag can be moved.

use model::reference::ImageReference;

use crate::place::Place;
use crate::verdict::Distrust;

/// The scopes of the setting `image.require_digest`: as in policies for `docker`, and `*` for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    pub scopes: Vec<String>,
}

impl Pins {
    /// Whether `reference` may be pulled.
    ///
    /// # Errors
    /// [`Distrust::NotPinned`] with the narrowest scope that wants a digest.
    pub fn check(&self, reference: &ImageReference) -> Result<(), Distrust> {
        if self.scopes.is_empty() || reference.digest().is_some() {
            return Ok(());
        }
        let mut within = Place::Registry(reference.clone()).scopes();
        within.push("*".to_owned());
        match within.into_iter().find(|scope| self.scopes.contains(scope)) {
            None => Ok(()),
            Some(scope) => Err(Distrust::NotPinned {
                setting: "image.require_digest",
                scope,
                name: reference.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_refused_where_digests_are_wanted() {
        let pins = |scopes: &[&str]| Pins { scopes: scopes.iter().map(|&scope| scope.to_owned()).collect() };
        let check = |pins: &Pins, text: &str| pins.check(&ImageReference::parse(text).unwrap());
        let digest = format!("sha256:{}", "a".repeat(64));
        let some = pins(&["docker.io/library", "*.example.com", "r.io:5000"]);
        for tagged in ["busybox", "docker.io/library/a/b:1", "x.y.example.com:80/a", "r.io:5000/a:1"] {
            let error = check(&some, tagged).unwrap_err().to_string();
            assert!(error.starts_with("image.require_digest"), "{error}");
            assert!(check(&some, &format!("{tagged}@{digest}")).is_ok());
        }
        for free in ["user/app", "example.com/a", "r.io/a"] {
            assert!(check(&some, free).is_ok(), "{free}");
        }
        assert!(check(&pins(&["*"]), "r.io/a").is_err());
        assert!(check(&Pins::default(), "r.io/a").is_ok());
    }
}
