//! Intel Resource Director Technology: a container's group in the resctrl file system (runtime-spec, `linux.intelRdt`; the kernel's
//! Documentation/filesystems/resctrl.rst).

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::error::{At, Failure, Stage};

/// What was made for a container, kept in its record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The control group that its processes are in.
    path: PathBuf,
    /// Its monitoring group, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
    /// Whether the control group is the container's own and goes with it.
    own: bool,
}

/// Where the resctrl file system is mounted in this mount namespace.
pub(crate) fn mounted() -> Result<PathBuf, Failure> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").at(Stage::Rdt, || "/proc/self/mountinfo")?;
    let found = table.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("resctrl ").then(|| left.split(' ').nth(4)).flatten()
    });
    found.map(PathBuf::from).ok_or_else(|| {
        Failure::new(Stage::Rdt, "linux.intelRdt", "no resctrl file system is mounted on this host").remedy(
            "leave the field out, or mount it where the processor has RDT: mount -t resctrl resctrl /sys/fs/resctrl",
        )
    })
}

/// Refuses what no resctrl file system takes.
pub(crate) fn check(rdt: &LinuxIntelRdt) -> Result<(), Failure> {
    let fail = |field: &str, cause: String| {
        Err(Failure::new(Stage::Configuration, format!("linux.intelRdt.{field}"), cause))
    };
    if let Some(name) = rdt.clos_id().as_deref().filter(|name| *name != "/")
        && (name.is_empty() || name == "." || name == ".." || name.contains(['/', '\n', '\0']))
    {
        return fail("closID", format!("{name:?} is no name of a group"));
    }
    for (field, schema, start) in
        [("l3CacheSchema", rdt.l3_cache_schema(), "L3"), ("memBwSchema", rdt.mem_bw_schema(), "MB:")]
    {
        let Some(schema) = schema else { continue };
        if !schema.starts_with(start) || schema.contains('\n') {
            return fail(field, format!("{schema:?} is not one line that starts with {start}"));
        }
    }
    match rdt.schemata().iter().flatten().find(|line| line.contains('\n')) {
        Some(line) => fail("schemata", format!("{line:?} is more than one line")),
        None => Ok(()),
    }
}

/// Makes or finds the group of the container `id` below `root`. What was made is taken back on failure.
pub(crate) fn make(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Group, Failure> {
    let lines: Vec<&str> = [rdt.l3_cache_schema(), rdt.mem_bw_schema()]
        .into_iter()
        .filter_map(|schema| schema.as_deref())
        .chain(rdt.schemata().iter().flatten().map(String::as_str))
        .collect();
    let path = match rdt.clos_id().as_deref() {
        Some("/") => root.to_path_buf(),
        Some(name) => root.join(name),
        None => root.join(id),
    };
    let object = || path.display().to_string();
    let there = path.is_dir();
    if !there {
        if rdt.clos_id().is_some() && lines.is_empty() {
            let cause = "there is no such group, and no schema to make one with";
            return Err(Failure::new(
                Stage::Rdt,
                format!("linux.intelRdt.closID: {}", path.display()),
                cause,
            ));
        }
        std::fs::create_dir(&path).at(Stage::Rdt, object)?;
    }
    let own = rdt.clos_id().is_none() && !there;
    let mut group = Group { path: path.clone(), monitor: None, own };
    let filled = fill(&mut group, rdt, id, &lines, there);
    if let Err(failure) = filled {
        if !there {
            group.own = true;
        }
        group.remove();
        return Err(failure);
    }
    Ok(group)
}

fn fill(
    group: &mut Group,
    rdt: &LinuxIntelRdt,
    id: &str,
    lines: &[&str],
    there: bool,
) -> Result<(), Failure> {
    let schemata = group.path.join("schemata");
    let object = || schemata.display().to_string();
    if !lines.is_empty() {
        // A group of that name is somebody else's too: its limits are not changed, only compared.
        if there && rdt.clos_id().is_some() {
            let present = std::fs::read_to_string(&schemata).at(Stage::Rdt, object)?;
            if let Some(other) = lines.iter().find(|line| !holds(&present, line)) {
                let cause = format!("the group has other limits than {other:?}: {:?}", present.trim());
                return Err(Failure::new(Stage::Rdt, object(), cause));
            }
        } else {
            group.write_schemata(lines)?;
        }
    }
    if rdt.enable_monitoring().unwrap_or(false) {
        let monitor = group.path.join("mon_groups").join(id);
        std::fs::create_dir(&monitor).at(Stage::Rdt, || monitor.display().to_string())?;
        group.monitor = Some(monitor);
    }
    Ok(())
}

impl Group {
    /// Puts the process `pid` into the group; its children are born there.
    pub(crate) fn add(&self, pid: i32) -> Result<(), Failure> {
        for folder in [Some(&self.path), self.monitor.as_ref()].into_iter().flatten() {
            let tasks = folder.join("tasks");
            std::fs::write(&tasks, pid.to_string()).at(Stage::Rdt, || tasks.display().to_string())?;
        }
        Ok(())
    }

    /// Writes limits, all in one go.
    pub(crate) fn write_schemata(&self, lines: &[&str]) -> Result<(), Failure> {
        let file = self.path.join("schemata");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, &text).at(Stage::Rdt, || file.display().to_string()).map_err(|failure| {
            let said = file.parent().and_then(Path::parent).map(|root| root.join("info/last_cmd_status"));
            match said.and_then(|path| std::fs::read_to_string(path).ok()) {
                Some(said) => failure.remedy(said.trim().to_string()),
                None => failure,
            }
        })
    }

    /// Removes what is the container's own. The kernel moves processes that are left to the default group.
    pub(crate) fn remove(&self) {
        if let Some(monitor) = &self.monitor {
            let _ = std::fs::remove_dir(monitor);
        }
        if self.own {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// Whether the limits of a `schemata` file are those of one line: `L3:0=ff;1=f`. The kernel pads names and numbers.
fn holds(present: &str, wanted: &str) -> bool {
    let parse = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let (name, rest) = line.split_once(':')?;
        let domains = rest.split(';').filter(|domain| !domain.trim().is_empty()).map(|domain| {
            let (id, value) = domain.split_once('=')?;
            Some((id.trim().to_string(), value.trim().trim_start_matches('0').to_ascii_lowercase()))
        });
        Some((name.trim().to_string(), domains.collect::<Option<_>>()?))
    };
    let Some((name, domains)) = parse(wanted) else { return false };
    present
        .lines()
        .filter_map(parse)
        .any(|(known, values)| known == name && domains.iter().all(|domain| values.contains(domain)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rdt(value: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_group_of_its_own_is_made_filled_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let wish =
            rdt(json!({"l3CacheSchema": "L3:0=7f0", "memBwSchema": "MB:0=20", "schemata": ["L2:0=f"]}));
        check(&wish).unwrap();
        let group = make(root.path(), &wish, "c1").unwrap();
        let folder = root.path().join("c1");
        assert_eq!(std::fs::read_to_string(folder.join("schemata")).unwrap(), "L3:0=7f0\nMB:0=20\nL2:0=f\n");
        group.add(77).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("tasks")).unwrap(), "77");
        // In a resctrl file system a directory goes with its files.
        std::fs::remove_file(folder.join("schemata")).unwrap();
        std::fs::remove_file(folder.join("tasks")).unwrap();
        group.remove();
        assert!(!folder.exists());
    }

    #[test]
    fn a_named_group_is_shared_and_stays() {
        let root = tempfile::tempdir().unwrap();
        assert!(
            make(root.path(), &rdt(json!({"closID": "gold"})), "c")
                .unwrap_err()
                .to_string()
                .contains("no such group")
        );
        let folder = root.path().join("gold");
        std::fs::create_dir_all(folder.join("mon_groups")).unwrap();
        std::fs::write(folder.join("schemata"), "    MB:0= 20;1=100\n    L3:0=0ff;1=7ff\n").unwrap();
        let same = json!({"closID": "gold", "l3CacheSchema": "L3:0=ff", "memBwSchema": "MB:1=100", "enableMonitoring": true});
        let group = make(root.path(), &rdt(same), "c").unwrap();
        assert!(folder.join("mon_groups/c").is_dir());
        group.remove();
        assert!(folder.is_dir() && !folder.join("mon_groups/c").exists());
        let other = rdt(json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}));
        assert!(make(root.path(), &other, "c").unwrap_err().to_string().contains("other limits"));
        assert!(make(root.path(), &rdt(json!({"closID": "/"})), "c").unwrap().path == root.path());
    }

    #[test]
    fn what_no_kernel_takes_is_refused_by_its_field() {
        for (bad, field) in [
            (json!({"closID": "../x"}), "closID"),
            (json!({"closID": ""}), "closID"),
            (json!({"l3CacheSchema": "MB:0=1"}), "l3CacheSchema"),
            (json!({"memBwSchema": "MB:0=1\nL3:0=1"}), "memBwSchema"),
            (json!({"schemata": ["L3:0=1\nL2:0=1"]}), "schemata"),
        ] {
            let failure = check(&rdt(bad.clone())).unwrap_err().to_string();
            assert!(failure.contains(&format!("linux.intelRdt.{field}")), "{bad}: {failure}");
        }
    }
}
