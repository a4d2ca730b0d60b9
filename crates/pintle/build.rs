//! Puts the shim's executable into the binary: its path comes in PINTLE_SHIM_ELF from `cargo xtask dist`; without it nothing is embedded.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=PINTLE_SHIM_ELF");
    let shim = match env::var_os("PINTLE_SHIM_ELF").map(PathBuf::from) {
        Some(file) => {
            let file = fs::canonicalize(&file)
                .map_err(|error| format!("PINTLE_SHIM_ELF={}: {error}", file.display()))?;
            println!("cargo::rerun-if-changed={}", file.display());
            format!("Some(include_bytes!({:?}))", file.display().to_string())
        }
        None => "None".to_owned(),
    };
    let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets OUT_DIR")?;
    fs::write(out.join("shim_elf.rs"), shim)?;
    Ok(())
}
