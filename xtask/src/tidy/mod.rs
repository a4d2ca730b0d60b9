//! What no compiler checks: which crate may use which, where `unsafe` may stand, how a file opens, how long it is, whether links lead somewhere.

mod files;
mod floors;
mod links;
mod source;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command;

/// No file is longer: before it is, it is about two things.
const MAX_LINES: usize = 600;

/// The only crate that may use `unsafe`.
const UNSAFE_CRATE: &str = "crates/sys/";

/// Checks the repository; prints each finding as `path:line: what`.
pub(crate) fn run() -> Result<()> {
    let findings = check(command::root())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} to mend", findings.len());
    }
    Ok(())
}

fn check(root: &Path) -> Result<Vec<String>> {
    let mut findings = floors::check(root)?;
    for path in files::all(root)? {
        let text = match fs::read(root.join(&path)).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => continue,
            Err(error) => return Err(error).with_context(|| path.clone()),
        };
        if path.ends_with(".rs") {
            rust(&path, &text, &mut findings);
        } else if path.ends_with(".md") {
            links::check(root, &path, &text, &mut findings);
        }
    }
    errors_have_pages(root, &mut findings)?;
    Ok(findings)
}

fn rust(path: &str, text: &str, findings: &mut Vec<String>) {
    let code = source::code_only(text);
    if !path.starts_with(UNSAFE_CRATE) {
        for line in source::lines_with_word(&code, "unsafe") {
            findings.push(format!(
                "{path}:{line}: `unsafe` outside {UNSAFE_CRATE}: give the kernel edge a safe function for it"
            ));
        }
    }
    // What a generator wrote is as it is.
    if path.contains("/generated/") {
        return;
    }
    if !source::opens_with_sentence(text) {
        findings
            .push(format!("{path}:1: does not open with a `//!` sentence that says what the file is for"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.push(format!("{path}:{MAX_LINES}: has {lines} lines; no file has more than {MAX_LINES}"));
    }
}

/// Each error name in the code has a page, and each page a name.
fn errors_have_pages(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let mut named = std::collections::BTreeMap::new();
    for path in
        files::all(root)?.into_iter().filter(|path| path.starts_with("crates/") && path.ends_with(".rs"))
    {
        let text = fs::read_to_string(root.join(&path)).with_context(|| path.clone())?;
        for (name, line) in source::error_names(&text) {
            named.entry(name).or_insert_with(|| format!("{path}:{line}"));
        }
    }
    let folder = root.join("docs/errors");
    for (name, place) in &named {
        if !folder.join(format!("{name}.md")).is_file() {
            findings.push(format!("{place}: the error {name} has no page docs/errors/{name}.md"));
        }
    }
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = file.strip_suffix(".md").filter(|name| name.starts_with("PNT-"))
            && !named.contains_key(name)
        {
            findings.push(format!("docs/errors/{file}:1: no error is named {name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        rust(path, text, &mut findings);
        findings
    }

    #[test]
    fn unsafe_is_found_outside_sys_only() {
        let text = "//! A file.\nfn f() { unsafe { g() } }\n";
        assert_eq!(findings("crates/shim/src/a.rs", text).len(), 1);
        assert!(findings("crates/sys/src/a.rs", text).is_empty());
        assert!(
            findings("crates/shim/src/a.rs", "//! Nothing unsafe.\n// unsafe\nconst A: &str = \"unsafe\";\n")
                .is_empty()
        );
    }

    #[test]
    fn a_file_opens_with_a_sentence_and_ends_in_time() {
        assert_eq!(findings("a.rs", "fn f() {}\n").len(), 1);
        assert_eq!(findings("a.rs", "//! todo\n").len(), 1);
        assert_eq!(findings("a.rs", &format!("//! A long file.\n{}", "\n".repeat(600))).len(), 1);
        assert!(findings("crates/cri/src/generated/a.rs", &"\n".repeat(9000)).is_empty());
    }
}
