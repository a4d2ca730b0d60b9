//! The command-line contract of CNI: variables and standard input in, a result or an error object out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use serde_json::Value;

use super::{Request, VERSIONS, run};
use crate::cni::error::{CniError, code};
use crate::cni::exec::Command;
use crate::cni::version::Version;

/// A configuration with a previous result; more is refused.
const MAX_INPUT_BYTES: u64 = 4 << 20;

/// Serves one call as a CNI plugin: `CNI_*` variables and the configuration on standard input; prints the result on standard output.
/// Returns 0, or 1 after an error object was printed (SPEC, "Section 2: Execution Protocol").
pub fn plugin_main() -> ExitCode {
    let mut input = Vec::new();
    let read = io::stdin().lock().take(MAX_INPUT_BYTES + 1).read_to_end(&mut input);
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (text, exit) = match read {
        Err(error) => failure(&CniError::new(code::IO, format!("standard input: {error}")), Version::V1_1),
        Ok(_) if input.len() as u64 > MAX_INPUT_BYTES => failure(
            &CniError::new(code::DECODE, format!("standard input is longer than {MAX_INPUT_BYTES} bytes")),
            Version::V1_1,
        ),
        Ok(_) => serve(&variable, &input),
    };
    let written = io::stdout().lock().write_all(text.as_bytes());
    if written.is_err() { ExitCode::FAILURE } else { exit }
}

fn failure(error: &CniError, version: Version) -> (String, ExitCode) {
    (format!("{}\n", error.to_json(version)), ExitCode::FAILURE)
}

fn serve(variable: &dyn Fn(&str) -> String, input: &[u8]) -> (String, ExitCode) {
    let parsed: Result<Value, CniError> = serde_json::from_slice(input)
        .map_err(|error| CniError::new(code::DECODE, format!("the configuration is not JSON: {error}")));
    let version = parsed
        .as_ref()
        .ok()
        .and_then(|config| config.get("cniVersion")?.as_str())
        .and_then(Version::parse)
        .filter(|version| VERSIONS.contains(version))
        .unwrap_or(Version::V1_1);
    match execute(variable, parsed) {
        Ok(Some(value)) => (format!("{value}\n"), ExitCode::SUCCESS),
        Ok(None) => (String::new(), ExitCode::SUCCESS),
        Err(error) => failure(&error, version),
    }
}

fn execute(
    variable: &dyn Fn(&str) -> String,
    config: Result<Value, CniError>,
) -> Result<Option<Value>, CniError> {
    let command = variable("CNI_COMMAND");
    let command = Command::parse(&command).ok_or_else(|| {
        let known = "ADD, DEL, CHECK, STATUS, GC or VERSION";
        CniError::new(code::BAD_ENVIRONMENT, format!("CNI_COMMAND {command:?} is not {known}"))
    })?;
    let config = config?;
    let about_pod = matches!(command, Command::Add | Command::Del | Command::Check);
    let value = |name: &str, required: bool| {
        let value = if about_pod { variable(name) } else { String::new() };
        if required && about_pod && value.is_empty() {
            return Err(CniError::new(code::BAD_ENVIRONMENT, format!("{name} is not set")));
        }
        Ok(value)
    };
    let container_id = value("CNI_CONTAINERID", true)?;
    let interface = value("CNI_IFNAME", true)?;
    let path = value("CNI_NETNS", command != Command::Del)?;
    let netns = match File::open(&path) {
        _ if path.is_empty() => None,
        Ok(file) => Some(file),
        // DEL succeeds where the namespace is gone.
        Err(_) if command == Command::Del => None,
        Err(error) => {
            return Err(CniError::new(code::UNKNOWN_CONTAINER, format!("CNI_NETNS {path}: {error}")));
        }
    };
    let request = Request {
        container_id: &container_id,
        netns_path: &path,
        netns: netns.as_ref().map(AsFd::as_fd),
        interface: &interface,
    };
    run(command, &request, &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(variables: &[(&str, &str)], input: &str) -> (Value, ExitCode) {
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, v)| v.to_string()).unwrap_or_default()
        };
        let (text, exit) = serve(&find, input.as_bytes());
        (serde_json::from_str(&text).unwrap(), exit)
    }

    #[test]
    fn version_is_answered_in_the_version_asked() {
        let (answer, exit) = call(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(answer["supportedVersions"][4], "1.1.0");
        assert_eq!(exit, ExitCode::SUCCESS);
    }

    #[test]
    fn what_is_missing_is_named_with_its_code() {
        let config = r#"{"cniVersion":"1.0.0","name":"n","type":"pintle"}"#;
        for (variables, input, expected, number) in [
            (vec![("CNI_COMMAND", "FOO")], config, "FOO", code::BAD_ENVIRONMENT),
            (vec![("CNI_COMMAND", "ADD")], config, "CNI_CONTAINERID", code::BAD_ENVIRONMENT),
            (vec![("CNI_COMMAND", "ADD")], "{", "JSON", code::DECODE),
            (
                vec![
                    ("CNI_COMMAND", "ADD"),
                    ("CNI_CONTAINERID", "c"),
                    ("CNI_IFNAME", "eth0"),
                    ("CNI_NETNS", "/absent"),
                ],
                config,
                "/absent",
                code::UNKNOWN_CONTAINER,
            ),
        ] {
            let (answer, exit) = call(&variables, input);
            assert!(answer["msg"].as_str().unwrap().contains(expected), "{answer}");
            assert_eq!(answer["code"], number);
            assert_eq!(exit, ExitCode::FAILURE);
        }
    }
}
