//! Who a container's processes run as: the request's choice, else the image's, looked up in the image's passwd(5) and group(5).
//!
//! Numbers are never guessed. A user that looks like a number is a number or an error; it is never looked up as a name, never wrapped,
//! and never becomes 0 (the classes of CVE-2024-40635 and CVE-2026-30892).

mod database;

use model::request::{GroupsPolicy, UserChoice};

pub use database::DATABASE_LIMIT;
use database::{Groups, Passwd, PasswdEntry};

/// The highest user or group id that is accepted, as in Kubernetes. Above it programs that count in 32 signed bits go wrong.
pub const MAX_ID: u32 = i32::MAX as u32;
/// NGROUPS_MAX of Linux.
const MAX_GROUPS: usize = 65_536;

/// Who a process runs as, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// Ascending, without doubles, and with `gid`: so a process cannot drop a group that files deny access to (CVE-2023-25173).
    pub additional_gids: Vec<u32>,
    /// Its home directory, `/` if the image names none.
    pub home: String,
}

/// Why a user cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("run_as_group {gid} is set without run_as_user or run_as_username; set one of them")]
    GroupWithoutUser { gid: u32 },
    #[error("{what} {given:?} is out of range; it must be from 0 to 2147483647")]
    OutOfRange { what: &'static str, given: String },
    #[error("{what} {given:?} is neither a name, a number, nor user:group")]
    Malformed { what: &'static str, given: String },
    #[error("{what} {given:?} is not in the image's /etc/passwd")]
    NoSuchUser { what: &'static str, given: String },
    #[error("group {given:?} is not in the image's /etc/group")]
    NoSuchGroup { given: String },
    #[error("the image's {file} is larger than 10 MiB")]
    TooLarge { file: &'static str },
    #[error("the home directory of user {uid} in the image's /etc/passwd holds control characters: {home:?}")]
    UnsafeHome { uid: u32, home: String },
    #[error("user {uid} would have more than 65536 groups")]
    TooManyGroups { uid: u32 },
}

/// Resolves `choice`; where it chooses nobody, `image_user` (the image's `User`), and where that is empty, root.
///
/// `passwd` and `group` are the texts of the image's files, empty where it has none. The primary group is the chosen one, else the
/// user's of /etc/passwd, else 0, as runtimes do since Docker. With [`GroupsPolicy::Merge`] the memberships of /etc/group are added.
pub fn resolve(
    choice: &UserChoice,
    image_user: &str,
    passwd: &str,
    group: &str,
) -> Result<ResolvedUser, UserError> {
    let passwd = Passwd::new(passwd)?;
    let groups = Groups::new(group)?;
    let chosen = if choice.uid.is_some() || !choice.username.is_empty() {
        of_request(choice, &passwd)?
    } else if let Some(gid) = choice.gid {
        return Err(UserError::GroupWithoutUser { gid });
    } else {
        of_image(image_user, &passwd, &groups)?
    };
    let gid = chosen.gid.unwrap_or_else(|| chosen.entry.map_or(0, |entry| entry.gid));
    let additional_gids = additional_gids(choice, &chosen, gid, &groups)?;
    let home = home(chosen.uid, chosen.entry)?;
    Ok(ResolvedUser { uid: chosen.uid, gid, additional_gids, home })
}

struct Chosen<'a> {
    uid: u32,
    /// Explicitly chosen.
    gid: Option<u32>,
    entry: Option<PasswdEntry<'a>>,
}

fn of_request<'a>(choice: &UserChoice, passwd: &Passwd<'a>) -> Result<Chosen<'a>, UserError> {
    if let Some(gid) = choice.gid {
        in_range("run_as_group", gid)?;
    }
    let mut chosen = match choice.uid {
        Some(uid) => {
            in_range("run_as_user", uid)?;
            Chosen { uid, gid: None, entry: passwd.by_uid(uid) }
        }
        None => user_part("run_as_username", &choice.username, passwd)?,
    };
    chosen.gid = choice.gid;
    Ok(chosen)
}

fn of_image<'a>(image_user: &str, passwd: &Passwd<'a>, groups: &Groups<'_>) -> Result<Chosen<'a>, UserError> {
    const WHAT: &str = "the image's user";
    let malformed = || UserError::Malformed { what: WHAT, given: quote(image_user) };
    if image_user.is_empty() {
        return Ok(Chosen { uid: 0, gid: None, entry: passwd.by_uid(0) });
    }
    let (user, group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image_user, None),
    };
    if group.is_some_and(|group| group.is_empty() || group.contains(':')) {
        return Err(malformed());
    }
    let mut chosen = user_part(WHAT, user, passwd)?;
    if let Some(group) = group {
        chosen.gid = Some(group_part(group, groups)?);
    }
    Ok(chosen)
}

fn user_part<'a>(what: &'static str, user: &str, passwd: &Passwd<'a>) -> Result<Chosen<'a>, UserError> {
    if let Some(uid) = number(what, user)? {
        return Ok(Chosen { uid, gid: None, entry: passwd.by_uid(uid) });
    }
    let entry = passwd.by_name(user).ok_or_else(|| UserError::NoSuchUser { what, given: quote(user) })??;
    Ok(Chosen { uid: entry.uid, gid: None, entry: Some(entry) })
}

fn group_part(group: &str, groups: &Groups<'_>) -> Result<u32, UserError> {
    if let Some(gid) = number("the image's group", group)? {
        return Ok(gid);
    }
    groups.by_name(group).ok_or_else(|| UserError::NoSuchGroup { given: quote(group) })?
}

/// `Some` for a number in range, `None` for what can only be a name, an error for everything that is neither.
fn number(what: &'static str, text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number {
        let in_range = text.parse::<u32>().ok().filter(|id| digits == text && *id <= MAX_ID);
        return match in_range {
            Some(id) => Ok(Some(id)),
            None => Err(UserError::OutOfRange { what, given: quote(text) }),
        };
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == ':';
    if text.is_empty() || text.starts_with(['-', '+']) || text.contains(odd) {
        return Err(UserError::Malformed { what, given: quote(text) });
    }
    Ok(None)
}

fn in_range(what: &'static str, id: u32) -> Result<(), UserError> {
    if id <= MAX_ID { Ok(()) } else { Err(UserError::OutOfRange { what, given: id.to_string() }) }
}

fn additional_gids(
    choice: &UserChoice,
    chosen: &Chosen<'_>,
    gid: u32,
    groups: &Groups<'_>,
) -> Result<Vec<u32>, UserError> {
    let mut gids = vec![gid];
    for id in &choice.supplemental_groups {
        in_range("supplemental_groups", *id)?;
        gids.push(*id);
    }
    match (choice.groups_policy, chosen.entry) {
        (GroupsPolicy::Merge, Some(entry)) => gids.extend(groups.of_member(entry.name)),
        (GroupsPolicy::Merge, None) | (GroupsPolicy::Strict, _) => {}
    }
    gids.sort_unstable();
    gids.dedup();
    if gids.len() > MAX_GROUPS {
        return Err(UserError::TooManyGroups { uid: chosen.uid });
    }
    Ok(gids)
}

fn home(uid: u32, entry: Option<PasswdEntry<'_>>) -> Result<String, UserError> {
    let home = entry.map_or("", |entry| entry.home);
    if home.contains(char::is_control) {
        return Err(UserError::UnsafeHome { uid, home: quote(home) });
    }
    Ok(if home.starts_with('/') { home.into() } else { "/".into() })
}

/// The beginning of a text that may be a megabyte of anything.
fn quote(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
