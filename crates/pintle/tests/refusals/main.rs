//! What bad input gets: a code that says whose fault it is, a message that names object and cause, and nothing changed or left behind.

mod at_once;
mod requests;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod surroundings;

use std::fmt::Debug;

use tonic::{Code, Status};

/// What a refusal lacks of this code and these words.
pub fn lacking<T: Debug>(
    what: &str,
    result: Result<T, Status>,
    code: Code,
    parts: &[&str],
) -> Option<String> {
    let status = match result {
        Ok(answer) => return Some(format!("{what}: accepted, {answer:?}")),
        Err(status) => status,
    };
    let said = status.message();
    let complete = status.code() == code && parts.iter().all(|part| said.contains(part)) && said.len() < 2000;
    (!complete).then(|| format!("{what}: not {code:?} with {parts:?}, but {:?}: {said:.2000}", status.code()))
}

/// A refusal has this code and says all of this.
#[track_caller]
pub fn refused<T: Debug>(what: &str, result: Result<T, Status>, code: Code, parts: &[&str]) {
    assert_eq!(lacking(what, result, code, parts), None);
}
