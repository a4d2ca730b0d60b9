//! A policy file (containers-policy.json(5)): which requirements an image from where has to meet.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::claim::Subject;
use crate::evidence::{Evidence, Wanted};
use crate::json::{JsonError, Members, Node, shorten};
use crate::place::Place;
use crate::read;
use crate::requirement::{Outcome, Requirement};
use crate::verdict::{Rule, Verdict, Why};

/// A policy is not larger.
const POLICY_BYTES: u64 = 4 << 20;

/// Why a policy file cannot be used. Nothing is admitted by it then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy {path} cannot be read: {why}", path = .path.display())]
    Io { path: PathBuf, why: String },
    #[error("{path}:{line}: {why}", path = .path.display())]
    Malformed { path: PathBuf, line: u32, why: String },
}

/// A policy.
#[derive(Debug, Clone)]
pub struct Policy {
    path: PathBuf,
    default: Section,
    /// By transport and scope.
    scopes: HashMap<String, HashMap<String, Section>>,
}

/// The requirements for a scope, each with its line.
#[derive(Debug, Clone)]
struct Section {
    line: u32,
    requirements: Vec<(u32, Requirement)>,
}

/// The requirements that one image has to meet.
#[derive(Debug, Clone, Copy)]
pub struct Requirements<'a> {
    path: &'a Path,
    scope: Scope<'a>,
    section: &'a Section,
}

/// Which part of the policy applies.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    Default,
    Transport { transport: &'static str, scope: &'a str },
}

impl Policy {
    /// Reads the policy at `path`.
    ///
    /// # Errors
    /// [`PolicyError`] with the line of what is not understood: as the man page asks, that refuses the whole file.
    pub fn read(path: &Path) -> Result<Policy, PolicyError> {
        let bytes = read::file(path, POLICY_BYTES)
            .map_err(|error| PolicyError::Io { path: path.to_owned(), why: error.to_string() })?;
        Policy::parse(path, &bytes)
    }

    /// Reads a policy from its bytes; `path` is for messages.
    ///
    /// # Errors
    /// As [`Policy::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Policy, PolicyError> {
        parse(bytes).map(|(default, scopes)| Policy { path: path.to_owned(), default, scopes }).map_err(
            |error| PolicyError::Malformed { path: path.to_owned(), line: error.line, why: error.why },
        )
    }

    /// The requirements for an image from `place`: those of the narrowest scope that the policy has, and of no other.
    pub fn requirements<'a>(&'a self, place: &Place) -> Requirements<'a> {
        let transport = place.transport();
        let found = self.scopes.get(transport).and_then(|scopes| {
            let mut names = place.scopes();
            names.push(String::new());
            names.iter().find_map(|name| scopes.get_key_value(name.as_str()))
        });
        let (scope, section) = match found {
            Some((scope, section)) => (Scope::Transport { transport, scope }, section),
            None => (Scope::Default, &self.default),
        };
        Requirements { path: &self.path, scope, section }
    }
}

impl Requirements<'_> {
    /// Which signatures could matter. Nothing, if they cannot change the verdict.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for (_, requirement) in &self.section.requirements {
            match requirement {
                Requirement::AcceptAnything => {}
                Requirement::Reject | Requirement::Unsupported { .. } => return Wanted::default(),
                Requirement::SignedBy { .. } => wanted.lookaside = true,
                Requirement::SigstoreSigned { .. } => wanted = Wanted { attached: true, lookaside: true },
            }
        }
        wanted
    }

    /// Whether the image is admitted, seeing these signatures: every requirement has to be met.
    pub fn judge(&self, subject: &Subject<'_>, evidence: &[Evidence]) -> Verdict {
        for (line, requirement) in &self.section.requirements {
            let why = match requirement.judge(subject, evidence) {
                Outcome::Met => continue,
                Outcome::Rejected => Why::Reject,
                Outcome::Unsupported(what) => Why::Unsupported(what),
                Outcome::Keys(error) => Why::Keys(error),
                Outcome::NotSigned(refused) => Why::NotSigned { refused },
            };
            return Verdict::Rejected { rule: self.rule(*line, requirement.kind()), why };
        }
        let kind = self.section.requirements.last().map_or("", |(_, requirement)| requirement.kind());
        Verdict::Accepted { rule: self.rule(self.section.line, kind) }
    }

    /// What is required, with the keys as they are now, wherever in the file it stands: two texts are the same only if the same signatures
    /// count. None if a key cannot be read.
    pub fn text(&self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        for (_, requirement) in &self.section.requirements {
            text.extend(format!("{requirement:?}").into_bytes());
            for part in requirement.keys().ok()? {
                text.extend((part.len() as u64).to_le_bytes());
                text.extend(part);
            }
        }
        Some(text)
    }

    fn rule(&self, line: u32, kind: &'static str) -> Rule {
        Rule { file: self.path.to_owned(), line, kind, scope: self.scope.to_string() }
    }
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Default => out.write_str("the default"),
            Scope::Transport { transport, scope: "" } => write!(out, "the default of {transport}"),
            Scope::Transport { transport, scope } => write!(out, "{transport} {scope}"),
        }
    }
}

type Parts = (Section, HashMap<String, HashMap<String, Section>>);

fn parse(bytes: &[u8]) -> Result<Parts, JsonError> {
    let mut top = Node::parse(bytes)?.object()?;
    let default = section(top.require("default")?)?;
    let mut all = HashMap::new();
    if let Some(transports) = top.take("transports") {
        for (transport, node) in transports.object()?.rest() {
            let mut scopes = HashMap::new();
            for (scope, node) in node.object()?.rest() {
                check_scope(&transport, &scope).map_err(|why| node.error(why))?;
                scopes.insert(scope, section(node)?);
            }
            all.insert(transport, scopes);
        }
    }
    top.finish()?;
    Ok((default, all))
}

/// A scope that can never match would silently leave its images to a wider one.
fn check_scope(transport: &str, scope: &str) -> Result<(), String> {
    let shown = shorten(scope);
    match transport {
        "docker" => match scope.strip_prefix("*.") {
            Some(domain) if domain.is_empty() || domain.contains(['*', '/', ':']) => Err(format!(
                "the scope {shown:?} never matches: a wildcard is \"*.\" and a domain, without port or path"
            )),
            None if scope.contains('*') => Err(format!(
                "the scope {shown:?} never matches: \"*\" stands only at the beginning, before \".\""
            )),
            _ => Ok(()),
        },
        "docker-archive" if !scope.is_empty() => {
            Err(format!("docker-archive has no scopes but \"\", and {shown:?} would never match"))
        }
        "oci" | "oci-archive" | "dir" if !scope.is_empty() => {
            let is_plain = scope.starts_with('/')
                && scope != "/"
                && scope.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
            match is_plain {
                true => Ok(()),
                false => Err(format!(
                    "the scope {shown:?} never matches: it has to be an absolute path, without \".\", \"..\" and \"/\" at its end"
                )),
            }
        }
        _ => Ok(()),
    }
}

fn section(node: Node<'_>) -> Result<Section, JsonError> {
    let items = node.array()?;
    if items.is_empty() {
        return Err(
            node.error("the list of requirements is empty; [{\"type\": \"reject\"}] rejects everything")
        );
    }
    let read = |item: Node<'_>| Ok((item.line(), read::requirement(item)?));
    let requirements = items.into_iter().map(read).collect::<Result<_, JsonError>>()?;
    Ok(Section { line: node.line(), requirements })
}

/// Takes exactly one, or at most one, of several members.
pub(crate) fn one_of<'a>(
    members: &mut Members<'a>,
    names: &[&'static str],
) -> Result<Option<(&'static str, Node<'a>)>, JsonError> {
    let mut found: Option<(&'static str, Node<'a>)> = None;
    for name in names {
        if let Some(node) = members.take(name)
            && let Some((other, _)) = found.replace((name, node))
        {
            return Err(node.error(format!("{other:?} and {name:?} exclude each other")));
        }
    }
    Ok(found)
}
