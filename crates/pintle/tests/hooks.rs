//! Hooks from folders, in the containers that get them.

mod support;

use support::{Daemon, Setup, in_own_network};

/// The file that docs/hooks.md shows, telling to another place.
fn example(place: &std::path::Path) -> String {
    let page = include_str!("../../../docs/hooks.md");
    let text = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(text.contains("/run/told.json"));
    text.replace("/run/told.json", &place.display().to_string())
}

#[test]
fn the_hook_of_the_documentation_runs_for_the_pod_that_asks_for_it() {
    needs_a_node!();
    in_own_network(async {
        let folder = tempfile::tempdir().unwrap();
        let (hooks, told) = (folder.path().join("hooks.d"), folder.path().join("told.json"));
        std::fs::create_dir(&hooks).unwrap();
        std::fs::write(hooks.join("10-tell.json"), example(&told)).unwrap();
        std::fs::write(hooks.join("20-broken.json"), "{").unwrap();
        let config = format!("[runtime]\nhooks_dirs = [{hooks:?}]\n");
        let daemon = Daemon::start_as(Setup { config, ..Setup::default() }).await;
        let quiet = daemon.pod("quiet");
        let pod = daemon.run_pod(&quiet).await.unwrap();
        daemon.run(&pod, &quiet, "c", "sleep 600").await;
        assert!(!told.exists());
        assert!(daemon.log().contains("20-broken.json"), "{}", daemon.log());
        let mut loud = daemon.pod("loud");
        loud.annotations.insert("tell.example".into(), "yes".into());
        let pod = daemon.run_pod(&loud).await.unwrap();
        let id = daemon.run(&pod, &loud, "c", "sleep 600").await;
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
        assert_eq!((state["id"].as_str(), state["status"].as_str()), (Some(id.as_str()), Some("creating")));

        // One that fails keeps the container from being, and says so.
        let fails = example(&told).replace("cat >", "echo no such luck >&2; false;");
        std::fs::write(hooks.join("10-tell.json"), fails).unwrap();
        let refused = daemon.create(&pod, &loud, &daemon.container("d", "true")).await.unwrap_err();
        assert!(refused.message().contains("no such luck"), "{refused}");
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}
