//! `state`, `list`, `ps`, `spec` and `features`: what is there, and what could be.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::arguments::{Flag, Parsed};
use super::lifecycle::{BUNDLE, one};
use super::{Context, Outcome, Problem, text};
use crate::{Record, Status};

const FORMAT: Flag = Flag::value("format", Some('f'), "table|json", "format of the output");
pub(super) const LIST: &[Flag] = &[FORMAT, Flag::switch("quiet", Some('q'), "ids only")];
pub(super) const PS: &[Flag] = &[FORMAT];
pub(super) const SPEC: &[Flag] =
    &[BUNDLE, Flag::switch("rootless", None, "for a user namespace with the caller's own id only")];

/// Whether JSON is asked for.
fn as_json(parsed: &Parsed) -> Result<bool, Problem> {
    match parsed.text("format")?.unwrap_or("table") {
        "json" => Ok(true),
        "table" => Ok(false),
        other => Err(Problem::usage(format!("--format {other:?} is neither table nor json"))),
    }
}

fn print_json(value: &Value) -> Outcome {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

pub(super) fn state(context: &Context, parsed: &Parsed) -> Outcome {
    let (record, status) = crate::state(&context.root, one(parsed)?)?;
    print_json(&document(context, &record, status))
}

/// The state with what runc adds to it.
fn document(context: &Context, record: &Record, status: Status) -> Value {
    let mut state = record.oci_state(status);
    if status == Status::Stopped {
        state["pid"] = 0.into();
    }
    state["created"] = text::timestamp(record.created_secs).into();
    state["rootfs"] = record.rootfs.as_deref().unwrap_or(Path::new("")).display().to_string().into();
    state["owner"] = owner(&context.root.join(&record.id)).into();
    state
}

/// The name of whom a file belongs to, or the number where the host has no name for it.
fn owner(path: &Path) -> String {
    let Ok(stat) = std::fs::metadata(path) else { return String::new() };
    let number = stat.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_string())
    });
    name.unwrap_or(number)
}

pub(super) fn list(context: &Context, parsed: &Parsed) -> Outcome {
    let json = as_json(parsed)?;
    if context.root_is_named {
        std::fs::metadata(&context.root)
            .map_err(|error| Problem::usage(format!("--root {}: {error}", context.root.display())))?;
    }
    let mut documents = Vec::new();
    for entry in crate::list(&context.root)? {
        match entry {
            Ok((record, status)) => documents.push(document(context, &record, status)),
            Err(error) => context.log.warning(&error.to_string()),
        }
    }
    let cell = |document: &Value, key: &str| match &document[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if parsed.has("quiet") {
        documents.iter().for_each(|document| println!("{}", cell(document, "id")));
        return Ok(0);
    }
    if json {
        return print_json(&documents.into());
    }
    let columns = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut rows = vec![columns.map(str::to_uppercase).to_vec()];
    rows.extend(documents.iter().map(|document| columns.map(|column| cell(document, column)).to_vec()));
    print!("{}", text::table(&rows));
    Ok(0)
}

pub(super) fn processes(context: &Context, parsed: &Parsed) -> Outcome {
    let (id, options) =
        parsed.rest.split_first().ok_or_else(|| Problem::usage("the container id is missing"))?;
    let pids = crate::processes(&context.root, &id.to_string_lossy())?;
    if as_json(parsed)? {
        return print_json(&serde_json::json!(pids));
    }
    // The host's ps knows more columns than anybody could want; which ones is said behind the id.
    let default = ["-ef".into()];
    let options = if options.is_empty() { &default[..] } else { options };
    let ps = std::process::Command::new("ps").args(options).stdin(std::process::Stdio::null()).output();
    let ps = ps.map_err(|error| {
        Problem::usage(format!("the host's program ps: {error}; --format json needs none"))
    })?;
    if !ps.status.success() {
        let said = String::from_utf8_lossy(&ps.stderr);
        return Err(Problem::usage(format!("the host's program ps: {}: {}", ps.status, said.trim())));
    }
    print!("{}", rows_of(&String::from_utf8_lossy(&ps.stdout), &pids)?);
    Ok(0)
}

/// The head of a table of ps and the rows of these processes.
fn rows_of(table: &str, pids: &[i32]) -> Result<String, Problem> {
    let head = table.lines().next().unwrap_or_default();
    let column = head.split_ascii_whitespace().position(|name| name == "PID").ok_or_else(|| {
        Problem::usage("ps printed no column PID, by which the container's processes are told from others")
    })?;
    let mut rows = format!("{head}\n");
    for line in table.lines().skip(1) {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            rows.push_str(line);
            rows.push('\n');
        }
    }
    Ok(rows)
}

pub(super) fn features(_: &Context, _: &Parsed) -> Outcome {
    print_json(&crate::features())
}

pub(super) fn spec(_: &Context, parsed: &Parsed) -> Outcome {
    let mut spec = crate::default_spec();
    if parsed.has("rootless") {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        crate::default_spec::make_rootless(&mut spec, uid, gid);
    }
    let path = parsed.path("bundle").unwrap_or_else(|| ".".into()).join("config.json");
    let mut file = std::fs::File::options().write(true).create_new(true).open(&path).map_err(|error| {
        Problem::usage(format!("{}: {error}; a file that exists is not replaced", path.display()))
    })?;
    serde_json::to_writer_pretty(&mut file, &spec)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_ps_are_told_by_their_pid() {
        let table = "UID  PID PPID CMD\nroot 11 1 sleep 5 12\nroot 12 11 sh\n";
        assert_eq!(rows_of(table, &[11]).unwrap_or_default(), "UID  PID PPID CMD\nroot 11 1 sleep 5 12\n");
        assert!(rows_of("CMD\nsh\n", &[1]).is_err());
    }
}
