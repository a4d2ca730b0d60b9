//! What of a container's environment its configuration cannot carry: JSON has only text, and a variable may be any bytes but NUL.

use std::path::Path;

use crate::error::{At, Failure, Stage};

/// The file beside `config.json` with variables that are not text: `NAME=value`, each with a NUL byte behind it. They replace those of
/// the same name in `process.env`, also for exec. An extension of ours to the runtime-spec; a bundle without it has none.
pub const RAW_ENVIRONMENT: &str = "environment.raw";

/// More than execve(2) takes.
const LARGEST: u64 = 8 << 20;

/// Reads the file of a bundle; empty where there is none.
pub(crate) fn read(bundle: &Path) -> Result<Vec<u8>, Failure> {
    let path = bundle.join(RAW_ENVIRONMENT);
    let object = || path.display().to_string();
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at(Stage::Configuration, object)?,
    };
    let bytes = sys::file::read_from(file, LARGEST + 1).at(Stage::Configuration, object)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(Stage::Configuration, object(), "is larger than 8 MiB"));
    }
    Ok(bytes)
}

/// Puts the variables of the file over those of `environment`. What is no variable is left out.
pub(crate) fn overlay(environment: &mut Vec<Vec<u8>>, raw: &[u8]) {
    for variable in raw.split(|byte| *byte == 0) {
        let Some(end) = variable.iter().position(|byte| *byte == b'=').filter(|end| *end > 0) else {
            continue;
        };
        environment.retain(|known| !known.starts_with(&variable[..=end]));
        environment.push(variable.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_replace_those_of_the_same_name() {
        let mut environment = vec![b"A=1".to_vec(), b"AB=2".to_vec()];
        overlay(&mut environment, b"A=\xff=\xfe\0\0=x\0nothing\0C=3");
        assert_eq!(environment, [&b"AB=2"[..], b"A=\xff=\xfe", b"C=3"]);
        overlay(&mut environment, b"");
        assert_eq!(environment.len(), 3);
    }
}
