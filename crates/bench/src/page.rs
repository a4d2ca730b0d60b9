//! Puts what was measured into a page, between two lines that say where.

use anyhow::{Context, Result};
use std::path::Path;

const BEGIN: &str = "<!-- measured -->\n";
const END: &str = "<!-- end of what was measured -->";

/// Replaces what the page has there.
pub(crate) fn put(file: &Path, tables: &str) -> Result<()> {
    let page = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let page = replaced(&page, tables)
        .with_context(|| format!("{}: has no lines `{}` and `{END}`", file.display(), BEGIN.trim()))?;
    std::fs::write(file, page).with_context(|| format!("writing {}", file.display()))
}

fn replaced(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_lines_changes() {
        let page = format!("a\n{BEGIN}old\n{END}\nb\n");
        let once = replaced(&page, "| new |\n").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\n| new |\n\n{END}\nb\n"));
        assert_eq!(replaced(&once, "| new |").unwrap(), once);
        assert_eq!(replaced("a\nb\n", ""), None);
    }
}
