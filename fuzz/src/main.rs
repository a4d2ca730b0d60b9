//! Fuzzes what reads hostile bytes: one program with all targets, which `cargo xtask fuzz` builds and runs.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod dictionary;
#[cfg(fuzzing)]
mod scratch;
#[cfg(fuzzing)]
mod seeds;
#[cfg(fuzzing)]
mod targets;

#[cfg(fuzzing)]
mod engine {
    use std::sync::OnceLock;

    use crate::targets::{self, Target};

    static CHOSEN: OnceLock<&Target> = OnceLock::new();

    /// `PINTLE_FUZZ=TARGET` chooses; `PINTLE_FUZZ_SEEDS=FOLDER` writes every target's seeds and dictionary there, and ends.
    fn choose() {
        if let Some(folder) = std::env::var_os("PINTLE_FUZZ_SEEDS") {
            targets::write_seeds(folder.as_ref()).expect("a folder for the seeds");
            std::process::exit(0);
        }
        let name = std::env::var("PINTLE_FUZZ").unwrap_or_default();
        let found = targets::TARGETS.iter().find(|target| target.name == name);
        let _ = CHOSEN.set(found.unwrap_or_else(|| panic!("PINTLE_FUZZ={name} is no target")));
    }

    libfuzzer_sys::fuzz_target!(init: choose(), |bytes: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(bytes);
        }
    });
}

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("built without a fuzzer: run `cargo xtask fuzz`");
    std::process::exit(2);
}
