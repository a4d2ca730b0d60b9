//! `-v` and `-info`: who this is, and what its runtime can do.

use super::PROGRAM;
use prost::Message;
use std::io::{self, Read, Write};
use task::{Any, OCI_FEATURES, RuntimeInfo, RuntimeVersion, pack_json};

/// No options are longer.
const LONGEST: u64 = 10 << 20;

/// Prints it for people.
pub(super) fn print_version() -> io::Result<()> {
    writeln!(io::stdout(), "{PROGRAM}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"))
}

/// Prints a [`RuntimeInfo`]. Standard input is an [`Any`] with options, or nothing.
pub(super) fn print_info() -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(LONGEST).read_to_end(&mut bytes)?;
    let options = Any::decode(&bytes[..])
        .map_err(|cause| io::Error::other(format!("the options on standard input: {cause}")))?;
    let info = RuntimeInfo {
        name: "io.containerd.pintle.v2".into(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), revision: String::new() }),
        options: Some(options).filter(|options| !options.type_url.is_empty()),
        features: Some(pack_json(OCI_FEATURES, serde_json::to_vec(&runtime::features())?)),
        annotations: Default::default(),
    };
    io::stdout().write_all(&info.encode_to_vec())
}
