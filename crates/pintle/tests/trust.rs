//! The policy of the documentation, in a daemon: what the kubelet is told of an image that nobody signed, and that one which is signed runs.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SigningKey as _;
use registry::make;
use serde_json::json;
use support::{Daemon, Setup, in_own_network};

/// The policy that docs/trust.md shows, about this repository and with this key.
fn example(repository: &str, key: &std::path::Path) -> String {
    let page = include_str!("../../../docs/trust.md");
    let text = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(text.contains("\"registry.example/team\"") && text.contains("/etc/pintle/keys/team.pub"));
    text.replace("registry.example/team", repository)
        .replace("/etc/pintle/keys/team.pub", key.to_str().unwrap())
}

#[test]
fn the_policy_of_the_documentation_admits_what_is_signed() {
    needs_a_node!();
    in_own_network(async {
        let folder = tempfile::tempdir().unwrap();
        let (policy, key_file) = (folder.path().join("policy.json"), folder.path().join("team.pub"));
        std::fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
        let config = format!("[image]\npolicy = {policy:?}\nrequire_digest = [\"docker.io\"]\n");
        let daemon = Daemon::start_as(Setup { config, ..Setup::default() }).await;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        std::fs::write(&key_file, key.public_key_pem()).unwrap();
        let repository = daemon.image.trim_end_matches(":1").to_owned();
        std::fs::write(&policy, example(&repository, &key_file)).unwrap();

        // It is here, and was pulled while everything was admitted.
        let refused = daemon.pull(&daemon.image).await.unwrap_err();
        // The only code with which the kubelet looks at the reason in the message.
        assert_eq!(refused.code(), tonic::Code::Unknown);
        let line = 1 + example(&repository, &key_file).lines().position(|line| line.trim() == "{").unwrap();
        let line = 1
            + line
            + example(&repository, &key_file).lines().skip(line).position(|l| l.trim() == "{").unwrap();
        let start = format!(
            "SignatureValidationFailed: pull {:?}: {}:{line}: sigstoreSigned",
            daemon.image,
            policy.display()
        );
        assert!(refused.message().starts_with(&start), "{start}\n{}", refused.message());
        assert!(refused.message().contains("no signature was found"), "{}", refused.message());
        let elsewhere = format!("{}/other:1", daemon.registry.host());
        daemon.contents.add("other", "1", &support::busybox_with(&[], json!({})));
        let refused = daemon.pull(&elsewhere).await.unwrap_err();
        assert!(refused.message().contains("reject for the default is not met"), "{}", refused.message());
        let refused = daemon.pull("docker.io/library/busybox:1").await.unwrap_err();
        assert!(refused.message().starts_with("SignatureValidationFailed: "), "{}", refused.message());
        assert!(refused.message().contains("image.require_digest \"docker.io\""), "{}", refused.message());

        let (digest, _) = daemon.contents.manifest("library/busybox", "1").unwrap();
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": repository },
                "image": { "docker-manifest-digest": digest },
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string();
        let signature = STANDARD.encode(key.sign(payload.as_bytes()).unwrap());
        let annotations = json!({ "dev.cosignproject.cosign/signature": signature });
        let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
        let signed = make::artifact("x", None, &[(kind, payload.as_bytes(), annotations)]);
        daemon.contents.add("library/busybox", &format!("{}.sig", digest.replace(':', "-")), &signed);
        daemon.pull(&daemon.image).await.unwrap();
        let config = daemon.pod("signed");
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "exit 7").await;
        assert_eq!(daemon.exited(&id).await.exit_code, 7);
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}
