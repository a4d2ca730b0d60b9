//! The name somebody meant, for "did you mean".

/// The candidate nearest to `word`, if it is near enough to be a slip of the hand: a third of its letters, one at least.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A key may be as long as the file; no slip is.
    if word.chars().count() > 64 {
        return None;
    }
    let folded = fold(word);
    candidates
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `-`, `_` and capitals are not what people get wrong by letter.
fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| *c != '-' && *c != '_').flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && *from == b[j - 1] {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_not_strangers() {
        let keys = ["conf_dir", "bin_dirs", "socket", "level"];
        let near = |word| nearest(word, keys.into_iter());
        assert_eq!(near("confdir"), Some("conf_dir"));
        assert_eq!(near("conf-dirs"), Some("conf_dir"));
        assert_eq!(near("scoket"), Some("socket"));
        assert_eq!(near("LEVEL"), Some("level"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"x".repeat(100_000)), None);
    }
}
