//! `pintle version`: this program's version and the runtime's.

use super::client::Client;
use super::endpoint::Endpoint;
use super::failure::{Explain, Failure};
use super::output::{Format, OutputArgs, Table, show};
use cri::runtime_v1::VersionRequest;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this program's version; asks no daemon
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) async fn run(args: Args, endpoint: &Endpoint) -> Result<(), Failure> {
    if args.client {
        let value = json!({ "client": { "version": VERSION } });
        return show(args.output.output, &value, || format!("pintle {VERSION}\n"));
    }
    let client = match Client::connect(endpoint).await {
        Ok(client) => client,
        Err(failure) => {
            // Its own version is known without a daemon, so it is said before the failure.
            if args.output.output == Format::Table {
                super::output::write_out(&format!("pintle {VERSION}\n"))?;
            }
            return Err(failure);
        }
    };
    let answer = client.runtime().version(VersionRequest { version: String::new() }).await;
    let runtime = answer.explain(|| format!("asking {endpoint} for its version"))?;
    let node =
        client.node().version(cri::node_v1::VersionRequest {}).await.ok().map(tonic::Response::into_inner);
    let value = json!({
        "client": { "version": VERSION },
        "runtime": {
            "endpoint": endpoint.to_string(),
            "name": runtime.runtime_name,
            "version": runtime.runtime_version,
            "apiVersion": runtime.runtime_api_version,
            "commit": node.as_ref().map(|node| &node.commit),
            "pid": node.as_ref().map(|node| node.pid),
        },
    });
    show(args.output.output, &value, || {
        let mut table = Table::new(&["", "NAME", "VERSION", "CRI", "ENDPOINT"]);
        table.row(["client".into(), "pintle".into(), VERSION.into(), "v1".into(), String::new()]);
        table.row([
            "runtime".into(),
            runtime.runtime_name.clone(),
            runtime.runtime_version.clone(),
            runtime.runtime_api_version.clone(),
            endpoint.to_string(),
        ]);
        table.to_string()
    })
}
