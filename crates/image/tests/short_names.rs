//! Names without a registry, looked for in several registries.

mod common;

use common::{Place, image_of, skip_unless_root};
use image::{Credentials, PullCause, PullRequest, RegistryError};
use registry::Registry;
use registry::tar::Entry;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_registry_that_has_it_serves_it() {
    if skip_unless_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("registries.conf");
    let place = Place::with(|config| config.registries.registries_conf = Some(conf.clone())).await;
    let empty = Registry::new();
    let empty_at = empty.listen().await.unwrap();
    let image = image_of(&[&[Entry::file("a", 0o644, b"a".to_vec())]]);
    place.registry.add("app", "1", &image);
    let host = place.listening.host();
    std::fs::write(&conf, format!("unqualified-search-registries = ['{}', '{host}']", empty_at.host()))
        .unwrap();
    // The kubelet would have chosen these for Docker Hub.
    let credentials = Some(Credentials::login("alice", "hunter2"));
    let pull = |name: &str| {
        place.images.pull(PullRequest {
            reference: name.into(),
            credentials: credentials.clone(),
            platform: None,
        })
    };
    let id = pull("app:1").await.unwrap();
    assert_eq!(id.as_str(), image.id);
    assert_eq!((empty.count("/manifests/1"), place.registry.count("/manifests/1")), (1, 1));
    assert!(place.registry.log().iter().all(|asked| asked.authorization.is_none()));
    let found = place.images.find("app:1").unwrap().unwrap();
    assert_eq!(found.repo_tags, [format!("{host}/app:1")]);
    assert!(place.images.find("docker.io/library/app:1").unwrap().is_none());
    assert!(place.images.find(id.as_str()).unwrap().is_some());
    let error = pull("absent:1").await.unwrap_err();
    assert!(matches!(*error.cause, PullCause::Registry(RegistryError::NotFound { .. })), "{error}");
    assert_eq!(error.attempts.len(), 2, "{error}");
    // With enforcing, several are refused, and nobody is asked.
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, format!("{text}\nshort-name-mode = 'enforcing'")).unwrap();
    let before = empty.log().len();
    let error = pull("app:1").await.unwrap_err();
    assert!(error.to_string().contains("registries.conf:1"), "{error}");
    assert_eq!(empty.log().len(), before);
}
