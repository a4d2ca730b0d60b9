//! The image's passwd(5) and group(5), read leniently where a line is broken and strictly where a number is.

use super::{MAX_ID, UserError, quote};

/// The most that is read of either file, in bytes; whoever reads them stops there (CVE-2025-4437, CVE-2026-47262).
pub const DATABASE_LIMIT: usize = 10 << 20;

/// A line of passwd(5).
#[derive(Debug, Clone, Copy)]
pub(super) struct PasswdEntry<'a> {
    pub(super) name: &'a str,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: &'a str,
}

/// The text of /etc/passwd; of several lines that fit the first counts, as in getpwnam(3).
pub(super) struct Passwd<'a>(&'a str);

impl<'a> Passwd<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, UserError> {
        if text.len() > DATABASE_LIMIT {
            return Err(UserError::TooLarge { file: "/etc/passwd" });
        }
        Ok(Passwd(text))
    }

    pub(super) fn by_uid(&self, uid: u32) -> Option<PasswdEntry<'a>> {
        self.0.lines().filter_map(passwd_line).filter_map(Result::ok).find(|entry| entry.uid == uid)
    }

    /// None: there is no such name; an error: there is, but its numbers are not ids.
    pub(super) fn by_name(&self, name: &str) -> Option<Result<PasswdEntry<'a>, UserError>> {
        let line = self.0.lines().find(|line| line.split(':').next() == Some(name))?;
        passwd_line(line)
    }
}

fn passwd_line(line: &str) -> Option<Result<PasswdEntry<'_>, UserError>> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let (uid, gid) = (fields.next()?, fields.next()?);
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let home = fields.nth(1).unwrap_or("");
    let ids = id("the uid in /etc/passwd", uid).and_then(|u| Ok((u, id("the gid in /etc/passwd", gid)?)));
    Some(ids.map(|(uid, gid)| PasswdEntry { name, uid, gid, home }))
}

/// The text of /etc/group.
pub(super) struct Groups<'a>(&'a str);

impl<'a> Groups<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, UserError> {
        if text.len() > DATABASE_LIMIT {
            return Err(UserError::TooLarge { file: "/etc/group" });
        }
        Ok(Groups(text))
    }

    pub(super) fn by_name(&self, name: &str) -> Option<Result<u32, UserError>> {
        let line = self.0.lines().find(|line| line.split(':').next() == Some(name))?;
        Some(id("the gid in /etc/group", line.split(':').nth(2)?))
    }

    /// The groups that list `member`; lines whose number is no id are passed over.
    pub(super) fn of_member(&self, member: &str) -> impl Iterator<Item = u32> {
        self.0.lines().filter_map(move |line| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?;
            let members = fields.next()?;
            members.split(',').any(|name| name.trim() == member).then(|| id("", gid).ok())?
        })
    }
}

fn id(what: &'static str, text: &str) -> Result<u32, UserError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = text.parse::<u32>().ok().filter(|id| digits && *id <= MAX_ID);
    id.ok_or_else(|| UserError::OutOfRange { what, given: quote(text) })
}
