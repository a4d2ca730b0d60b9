//! Which object a person means: by id, by a unique beginning of the id, by name, or by `POD/CONTAINER`. Pure.

use super::failure::Failure;
use cri::runtime_v1 as cri_v1;

/// Something that can be named on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidate {
    pub id: String,
    /// Every name that means this object; the first is the one shown.
    pub names: Vec<String>,
    /// What it is one of several attempts of: equal groups are the same thing, made again.
    pub group: String,
    /// Which attempt of its group; the highest is meant when only the group is named.
    pub attempt: (u32, i64),
}

impl Candidate {
    /// A container of a pod with this name.
    pub(crate) fn container(container: &cri_v1::Container, pod: Option<&cri_v1::PodSandbox>) -> Candidate {
        let metadata = container.metadata.clone().unwrap_or_default();
        let pod_metadata = pod.and_then(|pod| pod.metadata.clone()).unwrap_or_default();
        let mut names = vec![metadata.name.clone()];
        let mut group = format!("{}/{}", container.pod_sandbox_id, metadata.name);
        if pod.is_some() {
            names.push(format!("{}/{}", pod_metadata.name, metadata.name));
            names.push(format!("{}/{}/{}", pod_metadata.namespace, pod_metadata.name, metadata.name));
            group = format!("{}/{}", pod_metadata.uid, metadata.name);
        }
        let attempt = (metadata.attempt, container.created_at);
        Candidate { id: container.id.clone(), names, group, attempt }
    }

    /// A pod.
    pub(crate) fn pod(pod: &cri_v1::PodSandbox) -> Candidate {
        let metadata = pod.metadata.clone().unwrap_or_default();
        let names = vec![metadata.name.clone(), format!("{}/{}", metadata.namespace, metadata.name)];
        let group = format!("{}/{}", metadata.uid, metadata.name);
        Candidate { id: pod.id.clone(), names, group, attempt: (metadata.attempt, pod.created_at) }
    }

    /// An image; its tags and digests are names.
    pub(crate) fn image(image: &cri_v1::Image) -> Candidate {
        let mut names = image.repo_tags.clone();
        names.extend(image.repo_tags.iter().flat_map(|tag| short_references(tag)));
        names.extend(image.repo_digests.iter().cloned());
        Candidate { id: image.id.clone(), names, group: image.id.clone(), attempt: (0, 0) }
    }

    fn shown(&self) -> String {
        let name = self.names.iter().rfind(|name| name.matches('/').count() == 1).or(self.names.first());
        match name {
            Some(name) => format!("{name} ({})", super::output::short_id(&self.id)),
            None => super::output::short_id(&self.id).to_owned(),
        }
    }
}

/// The shorter spellings that mean `docker.io/library/x:latest`.
fn short_references(tag: &str) -> Vec<String> {
    let mut short = Vec::new();
    let mut add = |text: &str| {
        short.push(text.to_owned());
        short.extend(text.strip_suffix(":latest").map(str::to_owned));
    };
    add(tag);
    if let Some(rest) = tag.strip_prefix("docker.io/") {
        add(rest);
        if let Some(rest) = rest.strip_prefix("library/") {
            add(rest);
        }
    }
    short
}

/// Returns the index of the one candidate that `given` means.
///
/// A whole id wins over a name, and a name over the beginning of an id. Of several attempts of one container the newest is meant.
pub(crate) fn find(kind: &'static str, given: &str, candidates: &[Candidate]) -> Result<usize, Failure> {
    if let Some(index) = candidates.iter().position(|candidate| candidate.id == given) {
        return Ok(index);
    }
    let named = |candidate: &&Candidate| candidate.names.iter().any(|name| name == given);
    let by_name: Vec<&Candidate> = candidates.iter().filter(named).collect();
    let wanted = given.strip_prefix("sha256:").unwrap_or(given);
    let begins = |candidate: &&Candidate| {
        let id = candidate.id.strip_prefix("sha256:").unwrap_or(&candidate.id);
        !wanted.is_empty() && id.starts_with(wanted)
    };
    // An attempt is only chosen by name: the beginning of an id has to mean one object.
    let (matches, chosen) = match newest_of_one_group(&by_name) {
        None if by_name.is_empty() => {
            let matches: Vec<&Candidate> = candidates.iter().filter(begins).collect();
            let only = if let [only] = matches[..] { Some(only) } else { None };
            (matches, only)
        }
        newest => (by_name, newest),
    };
    match (matches.as_slice(), chosen) {
        ([], _) => {
            Err(Failure::Unknown { kind, given: given.to_owned(), similar: similar(given, candidates) })
        }
        (_, Some(chosen)) => {
            Ok(candidates.iter().position(|candidate| candidate.id == chosen.id).unwrap_or(0))
        }
        (many, None) => {
            let candidates = many.iter().map(|candidate| candidate.shown()).collect();
            Err(Failure::Ambiguous { given: given.to_owned(), candidates })
        }
    }
}

/// The newest of the matches when all are attempts of the same thing.
fn newest_of_one_group<'a>(matches: &[&'a Candidate]) -> Option<&'a Candidate> {
    let first = matches.first()?;
    let same = matches.iter().all(|candidate| candidate.group == first.group);
    same.then(|| matches.iter().max_by_key(|candidate| candidate.attempt).copied()).flatten()
}

/// Up to three names that look like what was given.
fn similar(given: &str, candidates: &[Candidate]) -> Vec<String> {
    let mut near: Vec<(usize, &str)> = candidates
        .iter()
        .flat_map(|candidate| &candidate.names)
        .filter_map(|name| Some((distance(given, name)?, name.as_str())))
        .collect();
    near.sort();
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// How far two names are apart, or `None` when nobody would confuse them.
fn distance(given: &str, name: &str) -> Option<usize> {
    const LONGEST: usize = 128;
    if given.is_empty() || given.len() > LONGEST || name.len() > LONGEST {
        return None;
    }
    if given.len() >= 3 && name.contains(given) {
        return Some(1);
    }
    let edits = edits(given, name);
    (edits <= 1 + given.chars().count() / 4).then_some(edits)
}

/// How many insertions, deletions, replacements and swaps of neighbours turn one name into the other (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[i][j] = replaced.min(rows[i][j - 1] + 1).min(rows[i - 1][j] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: &str, name: &str, group: &str, attempt: u32) -> Candidate {
        let names = vec![name.into(), format!("pod-{group}/{name}")];
        Candidate { id: id.into(), names, group: group.into(), attempt: (attempt, 0) }
    }

    fn some() -> Vec<Candidate> {
        vec![
            candidate("abc111", "web", "1", 0),
            candidate("abc222", "web", "1", 1),
            candidate("abd333", "database", "2", 0),
            candidate("web444", "cache", "3", 0),
        ]
    }

    #[test]
    fn by_id_by_beginning_and_by_name() {
        let all = some();
        assert_eq!(find("container", "abc111", &all).unwrap(), 0);
        assert_eq!(find("container", "abd", &all).unwrap(), 2);
        assert_eq!(find("container", "cache", &all).unwrap(), 3);
        assert_eq!(find("container", "pod-2/database", &all).unwrap(), 2);
    }

    #[test]
    fn a_name_means_the_newest_attempt_and_wins_over_the_beginning_of_an_id() {
        assert_eq!(find("container", "web", &some()).unwrap(), 1);
    }

    #[test]
    fn an_ambiguous_beginning_names_the_choices() {
        let Err(Failure::Ambiguous { candidates, .. }) = find("container", "ab", &some()) else { panic!() };
        assert_eq!(candidates.len(), 3);
    }

    #[test]
    fn one_name_in_two_pods_is_ambiguous() {
        let all = [candidate("a", "app", "1", 0), candidate("b", "app", "2", 0)];
        assert!(matches!(find("container", "app", &all), Err(Failure::Ambiguous { .. })));
        assert_eq!(find("container", "pod-2/app", &all).unwrap(), 1);
    }

    #[test]
    fn a_mistyped_name_is_corrected() {
        let Err(Failure::Unknown { similar, .. }) = find("container", "databse", &some()) else { panic!() };
        assert_eq!(similar, ["database"]);
        let Err(Failure::Unknown { similar, .. }) = find("container", "wbe", &some()) else { panic!() };
        assert_eq!(similar, ["web"]);
        let Err(Failure::Unknown { similar, .. }) = find("container", "zzzzzz", &some()) else { panic!() };
        assert!(similar.is_empty());
    }

    #[test]
    fn an_empty_name_means_nothing() {
        assert!(matches!(find("container", "", &some()), Err(Failure::Unknown { .. })));
    }

    #[test]
    fn an_image_is_found_by_its_short_name() {
        let image = cri_v1::Image {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: vec!["docker.io/library/busybox:latest".into()],
            ..Default::default()
        };
        let all = [Candidate::image(&image)];
        for given in
            ["busybox", "library/busybox", "docker.io/library/busybox", "busybox:latest", "0123", "sha256:01"]
        {
            assert_eq!(find("image", given, &all).unwrap(), 0, "{given}");
        }
        assert!(find("image", "busybox:1.0", &all).is_err());
    }
}
