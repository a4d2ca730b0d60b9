//! Running the plugins of a list one after the other, each with what the one before returned.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::{NetworkList, PluginConfig};
use super::exec::{self, Command, Environment, PluginError};
use super::record::Record;
use super::result::AddResult;
use super::version::Version;
use crate::plugin;

/// Where plugins are, how long each may take, and what the built-in one is told.
#[derive(Debug, Clone)]
pub struct Caller {
    pub bin_dirs: Vec<PathBuf>,
    pub deadline: Duration,
    /// The state folder that the built-in plugin uses where its configuration names none.
    pub state_dir: PathBuf,
}

/// What one run of a chain is about.
struct Run<'a> {
    list: &'a NetworkList,
    environment: Environment,
    netns: Option<BorrowedFd<'a>>,
    runtime: &'a Map<String, Value>,
}

impl Caller {
    /// Whether all programs of the list are there, without running any: what was never begun need not be undone.
    pub fn find(&self, list: &NetworkList) -> Result<(), PluginError> {
        let mut programs = list.plugins.iter().filter(|plugin| plugin.kind != plugin::TYPE);
        programs.try_for_each(|plugin| exec::find(&plugin.kind, &self.bin_dirs).map(drop))
    }

    /// ADD of every plugin in order; returns the last result in the list's version.
    pub fn add(
        &self,
        list: &NetworkList,
        record: &Record,
        netns: BorrowedFd<'_>,
    ) -> Result<Value, PluginError> {
        let run = Run {
            list,
            environment: environment(record, &record.netns),
            netns: Some(netns),
            runtime: &record.runtime,
        };
        let mut previous: Option<Value> = None;
        for plugin in &list.plugins {
            let result = self.call(&run, plugin, Command::Add, previous.as_ref(), None)?;
            // A plugin that prints nothing passes on what it was given (versions before 0.3.0 allow it).
            previous = match result {
                Some(value) => Some(normalize(plugin, value, list.version)?),
                None => previous,
            };
        }
        previous.ok_or_else(|| PluginError::Garbage {
            kind: list.plugins.last().map(|p| p.kind.clone()).unwrap_or_default(),
            command: "ADD",
            why: "no plugin returned a result".into(),
            stdout: String::new(),
            stderr: String::new(),
        })
    }

    /// DEL of every plugin in reverse order. It goes on past failures and returns all of them.
    pub fn del(&self, record: &Record, netns: Option<(&str, BorrowedFd<'_>)>) -> Vec<PluginError> {
        let list = match record.list() {
            Ok(list) => list,
            Err(why) => {
                return vec![garbage("record", "DEL", why)];
            }
        };
        let run = Run {
            list: &list,
            environment: environment(record, netns.map_or("", |(path, _)| path)),
            netns: netns.map(|(_, fd)| fd),
            runtime: &record.runtime,
        };
        let previous = record.result.as_ref().filter(|_| list.version.has_check());
        list.plugins
            .iter()
            .rev()
            .filter_map(|plugin| self.call(&run, plugin, Command::Del, previous, None).err())
            .collect()
    }

    /// CHECK of every plugin in order; nothing where the list's version or `disableCheck` rules it out.
    pub fn check(&self, record: &Record, netns: BorrowedFd<'_>) -> Result<(), PluginError> {
        let list = record.list().map_err(|why| garbage("record", "CHECK", why))?;
        if list.disable_check || !list.version.has_check() {
            return Ok(());
        }
        let run = Run {
            list: &list,
            environment: environment(record, &record.netns),
            netns: Some(netns),
            runtime: &record.runtime,
        };
        for plugin in &list.plugins {
            self.call(&run, plugin, Command::Check, record.result.as_ref(), None)?;
        }
        Ok(())
    }

    /// STATUS of every plugin (1.1); before 1.1 only whether the programs are there. The built-in one always answers.
    pub fn status(&self, list: &NetworkList) -> Result<(), PluginError> {
        let nothing = Map::new();
        let run = Run { list, environment: Environment::default(), netns: None, runtime: &nothing };
        for plugin in &list.plugins {
            if list.version.has_status_and_gc() || plugin.kind == plugin::TYPE {
                self.call(&run, plugin, Command::Status, None, None)?;
            } else {
                exec::find(&plugin.kind, &self.bin_dirs)?;
            }
        }
        Ok(())
    }

    /// GC of every plugin (1.1, and the built-in one always) with the attachments that are still valid; all failures are returned.
    pub fn gc(&self, list: &NetworkList, valid: &[(String, String)]) -> Vec<PluginError> {
        if list.disable_gc {
            return Vec::new();
        }
        let valid: Vec<Value> =
            valid.iter().map(|(id, interface)| json!({ "containerID": id, "ifname": interface })).collect();
        let nothing = Map::new();
        let run = Run { list, environment: Environment::default(), netns: None, runtime: &nothing };
        let valid = Value::Array(valid);
        list.plugins
            .iter()
            .filter(|plugin| list.version.has_status_and_gc() || plugin.kind == plugin::TYPE)
            .filter_map(|plugin| self.call(&run, plugin, Command::Gc, None, Some(&valid)).err())
            .collect()
    }

    /// The newest version that the list offers and all its plugins speak. Programs are only asked where the list offers a choice.
    pub fn negotiate(&self, list: &NetworkList) -> Result<Version, PluginError> {
        let mut offered = list.versions.clone();
        if offered.len() < 2 {
            return Ok(list.version);
        }
        for plugin in &list.plugins {
            if plugin.kind == plugin::TYPE {
                offered.retain(|version| plugin::VERSIONS.contains(version));
            } else {
                let spoken = exec::versions(&plugin.kind, &self.bin_dirs, self.deadline)?;
                offered.retain(|version| spoken.contains(version));
            }
        }
        offered.into_iter().max().ok_or_else(|| {
            garbage(&list.name, "VERSION", "its plugins have no version of \"cniVersions\" in common".into())
        })
    }

    fn call(
        &self,
        run: &Run<'_>,
        plugin: &PluginConfig,
        command: Command,
        previous: Option<&Value>,
        valid: Option<&Value>,
    ) -> Result<Option<Value>, PluginError> {
        let config = self.configuration(run, plugin, previous, valid);
        if plugin.kind != plugin::TYPE {
            let bytes = serde_json::to_vec(&config).map_err(|e| garbage(&plugin.kind, "", e.to_string()))?;
            let folders = &self.bin_dirs;
            return exec::call(&plugin.kind, folders, command, &run.environment, &bytes, self.deadline);
        }
        let request = plugin::Request {
            container_id: &run.environment.container_id,
            netns_path: &run.environment.netns,
            netns: run.netns,
            interface: &run.environment.interface,
        };
        plugin::run(command, &request, &config).map_err(|error| PluginError::Refused {
            kind: plugin::TYPE.into(),
            command: command.as_str(),
            error,
            stderr: String::new(),
        })
    }

    /// The plugin's own object with what the runtime adds (SPEC, "Deriving execution configuration").
    fn configuration(
        &self,
        run: &Run<'_>,
        plugin: &PluginConfig,
        previous: Option<&Value>,
        valid: Option<&Value>,
    ) -> Value {
        let mut body = plugin.body.clone();
        body.remove("capabilities");
        body.insert("cniVersion".into(), run.list.version.as_str().into());
        body.insert("name".into(), run.list.name.as_str().into());
        let ours = plugin.kind == plugin::TYPE;
        let runtime: Map<String, Value> = run
            .runtime
            .iter()
            .filter(|(name, _)| plugin.capabilities.contains(*name) || ours)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !runtime.is_empty() {
            body.insert("runtimeConfig".into(), Value::Object(runtime));
        }
        if let Some(previous) = previous {
            body.insert("prevResult".into(), previous.clone());
        }
        if let Some(valid) = valid {
            body.insert("cni.dev/valid-attachments".into(), valid.clone());
        }
        if ours && !body.contains_key("stateDir") {
            body.insert("stateDir".into(), self.state_dir.to_string_lossy().into());
        }
        Value::Object(body)
    }
}

fn environment(record: &Record, netns: &str) -> Environment {
    Environment {
        container_id: record.pod_id.clone(),
        netns: netns.into(),
        interface: record.interface.clone(),
        args: record.args.clone(),
    }
}

/// The result in the list's version; one that is in it already is kept as it is, with whatever else it says.
fn normalize(plugin: &PluginConfig, value: Value, version: Version) -> Result<Value, PluginError> {
    let bad = |why: String| PluginError::Garbage {
        kind: plugin.kind.clone(),
        command: "ADD",
        why,
        stdout: value.to_string().chars().take(4096).collect(),
        stderr: String::new(),
    };
    let parsed = AddResult::parse(&value, version).map_err(|error| bad(error.to_string()))?;
    if value.get("cniVersion").and_then(Value::as_str) == Some(version.as_str()) {
        return Ok(value);
    }
    Ok(parsed.to_json(version))
}

fn garbage(kind: &str, command: &'static str, why: String) -> PluginError {
    PluginError::Garbage { kind: kind.into(), command, why, stdout: String::new(), stderr: String::new() }
}
