//! The corpus of hostile images, asked of the daemon: each gets its code of gRPC, and leaves the daemon as it was.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use registry::corpus::{self, Case, Expected};
use tokio::task::JoinSet;
use tonic::Code;

use crate::needs_a_node;
use crate::support::{self, Daemon, in_own_network};

/// What is wrong with the answer to a pull of a case.
async fn complaint(daemon: &Daemon, case: &Case, number: usize, shared: &HashSet<String>) -> Option<String> {
    let name = format!("hostile{number}");
    daemon.contents.add(&name, "1", &case.image);
    let answer = daemon.pull(&format!("{}/{name}:1", daemon.registry.host())).await;
    match (&case.expected, answer) {
        (Expected::Refused { code, says }, Err(status)) => {
            let right = format!("{:?}", status.code()) == *code;
            let silent = says.iter().any(|part| !status.message().contains(part));
            (!right || silent).then(|| format!("it should be {code} with {says:?}: {status:?}"))
        }
        // A layer that is here already is not fetched, whatever the registry has in its place.
        (Expected::Refused { .. }, Ok(_))
            if case.image.layers.iter().any(|l| shared.contains(&l.diff_id)) =>
        {
            None
        }
        (Expected::Refused { code, .. }, Ok(_)) => Some(format!("it should be {code} and is taken")),
        (Expected::Unpacked(_), Err(status)) => Some(format!("it should be taken: {status:?}")),
        (Expected::Harmless, Err(status)) => {
            let code = status.code();
            let ours = matches!(code, Code::Unknown | Code::Internal | Code::ResourceExhausted);
            ours.then(|| format!("that is nobody's fault but the image's: {status:?}"))
        }
        (_, Ok(_)) => None,
    }
}

/// The layers that more than one case has.
fn shared(cases: &[(usize, Case)]) -> HashSet<String> {
    let mut seen = HashSet::new();
    let layers = cases.iter().flat_map(|(_, case)| &case.image.layers);
    layers.filter(|layer| !seen.insert(&layer.diff_id)).map(|layer| layer.diff_id.clone()).collect()
}

/// Those that a daemon with its usual limits and patience answers soon.
fn is_soon(case: &Case) -> bool {
    let again = matches!(case.expected, Expected::Refused { code: "Unavailable", .. });
    !case.needs_low_limits && !again && case.rules.is_empty()
}

#[test]
fn every_hostile_image_gets_its_code() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let outside = daemon.path("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("canary"), "alive").unwrap();
        let cases: Vec<(usize, Case)> =
            corpus::cases(&outside.display().to_string()).into_iter().filter(is_soon).enumerate().collect();
        let (count, shared) = (cases.len(), Arc::new(shared(&cases)));
        let daemon = Arc::new(daemon);
        let (mut failures, mut running) = (Vec::new(), JoinSet::new());
        for (number, case) in cases {
            if running.len() >= 8 {
                failures.extend(running.join_next().await.and_then(Result::unwrap));
            }
            let (daemon, shared) = (Arc::clone(&daemon), Arc::clone(&shared));
            running.spawn(async move {
                let within =
                    tokio::time::timeout(Duration::from_secs(30), complaint(&daemon, &case, number, &shared));
                let why = within.await.unwrap_or_else(|_| Some("no answer".into()));
                why.map(|why| format!("{}: {}", case.name, why.chars().take(600).collect::<String>()))
            });
        }
        while let Some(done) = running.join_next().await {
            failures.extend(done.unwrap());
        }
        assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
        assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "alive");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        // It goes on as if nothing had been.
        daemon.pull(&daemon.image.clone()).await.unwrap();
        daemon.empty().await;
    });
}
