//! What `cargo xtask vm` is told.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub(super) const USAGE: &str = "\
cargo xtask vm [-p CRATE]... [-t FILE]... [--systemd [--cgroup-v1]] [--selinux] [-j JOBS] [--keep] [--kvm] [-- TESTNAME...]
cargo xtask vm critest [--focus REGEX] [--skip REGEX] [--handler PROGRAM] [--binary FILE] [--systemd] [--selinux] [--keep] [--kvm]
cargo xtask vm oci [--focus NAME] [--binary FILE] [--systemd [--cgroup-v1]] [--keep] [--kvm]

  -p CRATE    only this crate's tests; may be repeated
  -t FILE     only tests of these files of `tests/`; may be repeated
  -j JOBS     how many compilers at once
  --keep      afterwards a shell in the machine, on this terminal; `poweroff -f` ends it
  --kvm       let the processor run the machine, where /dev/kvm can; otherwise it is emulated
  critest     Kubernetes' own suite against a daemon in the machine, in place of the tests; AppArmor is on there
  oci         the OCI's validation programs with `pintle oci`, and with runc where this machine has it
  --focus, --skip
              which specs of critest, or which programs
  --handler PROGRAM
              pods without a handler are run by this OCI runtime of this machine, as crun, in place of the built-in one
  --binary FILE
              the pintle to test; without it, one is built
  --systemd   systemd is the machine's init, and makes control groups where it is asked to
  --cgroup-v1 with --systemd: control groups are of version 1
  --selinux   SELinux is on in place of AppArmor, with a small policy
  TESTNAME    only tests whose names contain one of these; `demo` is the demonstration
";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) packages: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) jobs: Option<String>,
    pub(super) keep: bool,
    pub(super) kvm: bool,
    pub(super) filters: Vec<String>,
    pub(super) suite: Option<Suite>,
    pub(super) selinux: bool,
    pub(super) systemd: bool,
    pub(super) cgroup_v1: bool,
}

/// A suite in place of the tests, and how much of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) kind: SuiteKind,
    /// The OCI runtime that runs pods.
    pub(super) handler: Option<String>,
    pub(super) focus: Option<String>,
    pub(super) skip: Option<String>,
    pub(super) binary: Option<PathBuf>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum SuiteKind {
    #[default]
    Critest,
    Oci,
}

impl Options {
    /// Reads the words after `vm`.
    pub(super) fn parse(args: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "-p" | "--package" => options.packages.push(value()?),
                "-t" | "--test" => options.files.push(value()?),
                "-j" | "--jobs" => options.jobs = Some(value()?),
                "--keep" => options.keep = true,
                "--kvm" => options.kvm = true,
                "--selinux" => options.selinux = true,
                "--systemd" => options.systemd = true,
                "--cgroup-v1" => options.cgroup_v1 = true,
                "critest" => options.suite = Some(Suite::default()),
                "oci" => options.suite = Some(Suite { kind: SuiteKind::Oci, ..Suite::default() }),
                "--focus" | "--skip" | "--binary" | "--handler" => {
                    let value = value()?;
                    let suite = options.suite.as_mut().with_context(|| format!("{arg} is for a suite"))?;
                    match arg.as_str() {
                        "--focus" => suite.focus = Some(value),
                        "--skip" => suite.skip = Some(value),
                        "--handler" => suite.handler = Some(value),
                        _ => suite.binary = Some(std::path::absolute(value)?),
                    }
                }
                "--" => options.filters.extend(args.by_ref().cloned()),
                other => bail!("vm does not know `{other}`\n\n{USAGE}"),
            }
        }
        if options.systemd && options.selinux {
            bail!("--systemd and --selinux do not go together: the small policy knows nothing of systemd");
        }
        if options.cgroup_v1 && !options.systemd {
            bail!("--cgroup-v1 goes with --systemd, which mounts them");
        }
        if let Some(Suite { kind: SuiteKind::Oci, skip, handler, .. }) = &options.suite
            && (skip.is_some() || handler.is_some())
        {
            bail!("--skip and --handler are for `critest`");
        }
        // A shell script in the machine splits them into words.
        let focus = options.suite.iter().filter(|suite| suite.kind == SuiteKind::Oci).flat_map(|s| &s.focus);
        if let Some(odd) = options.filters.iter().chain(focus).find(|name| !name.chars().all(plain)) {
            bail!("`{odd}` is no part of a test's name: letters, digits, `_` and `:`");
        }
        Ok(options)
    }
}

impl Options {
    /// Whether the test program of this name, `CRATE` or `CRATE (FILE)`, is to be run.
    pub(super) fn choose(&self, program: &str) -> bool {
        let (package, file) = program.split_once(" (").unwrap_or((program, ""));
        let file = file.trim_end_matches(')');
        let among =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|known| known == name);
        let needs_kernel = !self.packages.is_empty() || super::CRATES.contains(&package);
        needs_kernel && among(&self.packages, package) && among(&self.files, file)
    }
}

fn plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_:-".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_follows_two_dashes_names_tests() {
        let options = parse("-p cgroup -p shim --keep -- limits a::b").unwrap();
        assert_eq!(options.packages, ["cgroup", "shim"]);
        assert_eq!(options.filters, ["limits", "a::b"]);
        assert!(options.keep && !options.kvm);
    }

    #[test]
    fn specs_are_chosen() {
        let options = parse("critest --focus AppArmor --kvm").unwrap();
        assert_eq!(options.suite, Some(Suite { focus: Some("AppArmor".into()), ..Suite::default() }));
        assert!(parse("--focus AppArmor").is_err());
        let options = parse("critest --handler crun --systemd").unwrap();
        assert_eq!(options.suite.unwrap().handler.as_deref(), Some("crun"));
        assert_eq!(parse("oci --focus kill").unwrap().suite.unwrap().kind, SuiteKind::Oci);
        assert!(parse("oci --handler crun").is_err());
    }

    #[test]
    fn programs_are_chosen_by_crate_and_file() {
        let chosen = |line: &str| {
            let options = parse(line).unwrap();
            let all = ["cgroup", "cgroup (life)", "pintle (main)", "pintle (life)", "model"];
            all.into_iter().filter(|program| options.choose(program)).collect::<Vec<_>>()
        };
        assert_eq!(chosen(""), ["cgroup", "cgroup (life)", "pintle (main)", "pintle (life)"]);
        assert_eq!(chosen("-p cgroup"), ["cgroup", "cgroup (life)"]);
        assert_eq!(chosen("-p cgroup -p pintle -t life"), ["cgroup (life)", "pintle (life)"]);
        assert_eq!(chosen("-t life"), ["cgroup (life)", "pintle (life)"]);
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(parse("limits").unwrap_err().to_string().contains("`limits`"));
        assert!(parse("-p").unwrap_err().to_string().contains("-p"));
        assert!(parse("-- $(reboot)").unwrap_err().to_string().contains("$(reboot)"));
    }
}
