//! Project tasks: `cargo xtask test`, `tidy`, `fuzz`, `dist`, `bench`, `conformance`, `cluster`, `vm`, `gen`.

#[cfg(feature = "gen")]
mod apparmor;
mod bench;
mod cluster;
mod command;
mod conformance;
mod dist;
mod elf;
mod fuzz;
mod r#gen;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

const TASKS: &str = "\
cargo xtask TASK

  test [FILTER] [--shared-host]   formatting, lints, tidy and every test, with a summary of what was skipped and why;
                                  --shared-host: others work on this machine too, so a changed mount, interface, nftables
                                  table or control group is told and not a failure
  test --vm [OPTIONS OF vm]       the tests that need root in emulated machines: with control groups of version 2 alone, and under systemd
  tidy                            floors, unsafe, file openings and lengths, links
  fuzz [--seconds N] [TARGET...]  what reads hostile bytes is fed with them, a minute each; --help: what else can be chosen
  dist                            the release: one static file, packed with its unit and an example configuration
  conformance crictl|critest ...  crictl's commands, or Kubernetes' own suite, against a throw-away daemon
  cluster test|up|down ...        a kubelet, alone or in a cluster, on Pintle; alone: --help
  bench --counts [--binary FILE] [--bless]
                                  what a pod costs in processes, syncs and system calls, against crates/bench/counts.toml
  bench --peers [OPTIONS]         every row of docs/performance.md, beside containerd (built by Go's module proxy) and CRI-O (where it is)
  bench [OPTIONS]                 the release measured through CRI, beside containerd where it is installed; --help: what can be chosen
  vm [-p CRATE] [-- TESTNAME]     the tests as root in an emulated machine with control groups of version 2 alone and a Debian kernel
  gen [--check]                   generated code from the protocol files, and the compiled AppArmor profile; --check: is it current?
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let done = match args.first().map(String::as_str) {
        Some("test") => test::run(rest),
        Some("tidy") => tidy::run(),
        Some("fuzz") => fuzz::run(rest),
        Some("dist") => dist::run(rest),
        Some("conformance") => conformance::run(rest),
        Some("cluster") => cluster::run(rest),
        Some("bench") => bench::run(rest),
        Some("vm") => vm::run(rest),
        Some("gen") => r#gen::run(rest),
        _ => {
            eprint!("{TASKS}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
