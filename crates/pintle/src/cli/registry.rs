//! `pintle registry explain`: which URLs serve an image, what authenticates each, and which file and line says so. It needs no daemon.

use std::path::PathBuf;

use distribution::{Candidate, CredentialSource, Endpoint, Place, Plan, Proxies, Scheme, Tls};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{OutputArgs, printable, show};
use crate::config::{Config, DEFAULT_FILE, Main};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show which URLs an image is asked of, in their order, and who says so
    Explain(ExplainArgs),
}

#[derive(Debug, clap::Args)]
struct ExplainArgs {
    /// Images, as a pod would name them
    #[arg(required = true)]
    images: Vec<String>,
    /// The daemon's configuration file [default: /etc/pintle/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Command::Explain(args) = &args.command;
    let config = match &args.config {
        Some(file) => Config::load(file, Main::Named),
        None => Config::load(DEFAULT_FILE.as_ref(), Main::Usual),
    };
    let sources = config.map_err(Failure::Config)?.image.sources();
    let proxies = Proxies::of_environment();
    let mut plans = Vec::new();
    for image in &args.images {
        plans.push(sources.plan(image).map_err(|error| Failure::Route(Box::new(error)))?);
    }
    let value = Value::Array(plans.iter().map(|plan| plan_to_json(plan, &proxies)).collect());
    show(args.output.output, &value, || plans.iter().map(|plan| plan_to_text(plan, &proxies)).collect())
}

fn plan_to_text(plan: &Plan, proxies: &Proxies) -> String {
    let mut text = String::new();
    for candidate in &plan.candidates {
        text.push_str(&printable(&candidate.reference.to_string()));
        if let Some(place) = &candidate.said {
            text.push_str(&format!("   (a short name: {})", printable(&place.to_string())));
        }
        text.push('\n');
        for (at, endpoint) in candidate.endpoints.iter().enumerate() {
            text.push_str(&format!("  {}  {}\n", at + 1, printable(&url(candidate, endpoint))));
            for (name, value) in rows(endpoint, proxies) {
                text.push_str(&format!("     {name:<12} {}\n", printable(&value)));
            }
        }
    }
    for (place, key) in &plan.unknown {
        text.push_str(&format!(
            "not understood, and ignored: {} at {}\n",
            printable(key),
            printable(&place.to_string())
        ));
    }
    text
}

/// What the manifest is asked for by.
fn url(candidate: &Candidate, endpoint: &Endpoint) -> String {
    endpoint.url(&format!("manifests/{}", candidate.reference.manifest()))
}

fn rows(endpoint: &Endpoint, proxies: &Proxies) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("asked for", endpoint.capabilities.names().join(", ")),
        ("said by", said(&endpoint.said)),
        ("spoken to", spoken_to(endpoint)),
    ];
    for identity in &endpoint.tls.identities {
        let (certificate, key) = (identity.certificate.path.display(), identity.key_path().display());
        rows.push(("certificate", format!("{certificate}, with the key of {key}")));
    }
    let request = match &endpoint.registry {
        Some(_) => "those of the request".to_owned(),
        None => format!("those of the request if they are addressed to {}", endpoint.authority),
    };
    rows.push(("credentials", request));
    rows.extend(endpoint.credentials.iter().map(|source| ("  else", credential(source))));
    rows.push(("  else", "none".into()));
    if !endpoint.headers.is_empty() {
        let names: Vec<_> = endpoint.headers.iter().map(|(name, _)| name.as_str()).collect();
        rows.push(("headers", names.join(", ")));
    }
    if let Some(connect) = endpoint.connect {
        rows.push(("connect", format!("within {} s", connect.as_secs_f32())));
    }
    match proxies.of(endpoint.first_scheme(), &endpoint.authority) {
        Ok(None) => {}
        Ok(Some(proxy)) => rows.push(("proxy", format!("{proxy}, of {} in this environment", proxy.said))),
        Err(bad) => rows.push(("proxy", format!("none can be used: {bad}"))),
    }
    rows
}

fn said(places: &[Place]) -> String {
    match places {
        [] => "nobody: it is what the name says".into(),
        places => places.iter().map(Place::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn spoken_to(endpoint: &Endpoint) -> String {
    match endpoint.scheme {
        Scheme::Http => "without TLS".into(),
        Scheme::Https => format!("with TLS, {}", trust(&endpoint.tls)),
        Scheme::HttpsElseHttp => {
            format!("with TLS, {}; without, if it does not speak that", trust(&endpoint.tls))
        }
    }
}

fn trust(tls: &Tls) -> String {
    if tls.skip_verify {
        return "whatever certificate it shows".into();
    }
    let own: Vec<_> = tls.authorities.iter().map(|file| file.path.display().to_string()).collect();
    match own.is_empty() {
        true => "trusting this machine's authorities".into(),
        false => format!("trusting this machine's authorities and {}", own.join(", ")),
    }
}

fn credential(source: &CredentialSource) -> String {
    match source {
        CredentialSource::File { place, key, .. } => format!("those for {key} in {place}"),
        CredentialSource::Helper { place, name, server } => {
            format!("what docker-credential-{name} has for {server}, as {place} says")
        }
        CredentialSource::Unreadable { why } => format!("the pull fails: {why}"),
    }
}

fn plan_to_json(plan: &Plan, proxies: &Proxies) -> Value {
    let place = |place: &Place| json!({ "file": place.file, "line": place.line });
    let endpoint = |candidate: &Candidate, endpoint: &Endpoint| {
        let schemes = match endpoint.scheme {
            Scheme::Http => vec!["http"],
            Scheme::Https => vec!["https"],
            Scheme::HttpsElseHttp => vec!["https", "http"],
        };
        let proxy = proxies.of(endpoint.first_scheme(), &endpoint.authority);
        let identity = |one: &distribution::Identity| json!({ "certificate": one.certificate.path, "key": one.key_path() });
        let credentials = endpoint.credentials.iter().map(|source| match source {
            CredentialSource::File { place: at, key, .. } => json!({ "file": place(at), "key": key }),
            CredentialSource::Helper { place: at, name, server } => {
                json!({ "helper": format!("docker-credential-{name}"), "server": server, "said_by": place(at) })
            }
            CredentialSource::Unreadable { why } => json!({ "unreadable": why }),
        });
        json!({
            "url": url(candidate, endpoint),
            "schemes": schemes,
            "capabilities": endpoint.capabilities.names(),
            "said_by": endpoint.said.iter().map(place).collect::<Vec<_>>(),
            "skip_verify": endpoint.tls.skip_verify,
            "authorities": endpoint.tls.authorities.iter().map(|file| &file.path).collect::<Vec<_>>(),
            "certificates": endpoint.tls.identities.iter().map(identity).collect::<Vec<_>>(),
            "takes_credentials_of_request": endpoint.registry.is_some(),
            "credentials": credentials.collect::<Vec<_>>(),
            "headers": endpoint.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            "connect_timeout_secs": endpoint.connect.map(|time| time.as_secs_f64()),
            "proxy": proxy.as_ref().ok().and_then(|proxy| proxy.map(ToString::to_string)),
            "proxy_error": proxy.as_ref().err().map(ToString::to_string),
        })
    };
    let candidate = |one: &Candidate| {
        json!({
            "reference": one.reference.to_string(),
            "said_by": one.said.as_ref().map(place),
            "endpoints": one.endpoints.iter().map(|e| endpoint(one, e)).collect::<Vec<_>>(),
        })
    };
    json!({
        "candidates": plan.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "ignored": plan.unknown.iter().map(|(at, key)| json!({ "key": key, "at": place(at) })).collect::<Vec<_>>(),
    })
}
