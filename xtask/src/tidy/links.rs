//! Links in the documentation that lead to files of the repository.

use std::path::Path;

/// Adds a finding for each link of the Markdown file `path` that leads nowhere.
pub(super) fn check(root: &Path, path: &str, text: &str, findings: &mut Vec<String>) {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    for (line, link) in links(text) {
        let file = link.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
            continue;
        }
        if !root.join(folder).join(file).exists() {
            findings.push(format!("{path}:{line}: the link to {file} leads nowhere"));
        }
    }
}

/// Each `](target)` outside fenced code, with its line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if !fenced {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| (at + 1, target)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "[a](b.md) and [c](d#e)\n```\n[x](y)\n```\n[z](w)";
        assert_eq!(links(text), [(1, "b.md"), (1, "d#e"), (5, "w")]);
    }

    #[test]
    fn a_link_to_nothing_is_told() {
        let mut findings = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        check(root, "src/x.md", "[a](main.rs) [b](nothing.md) [c](https://example.org)", &mut findings);
        assert_eq!(findings.len(), 1);
    }
}
