//! Which extended attributes a layer may bring, and what of them the kernel would refuse.

use super::UnpackError;
use crate::tar::{Entry, Kind};

/// The largest name and value of an extended attribute (xattr(7)), and how many one entry may have.
const XATTR_NAME_MAX: usize = 255;
pub(super) const XATTR_VALUE_MAX: usize = 64 << 10;
const XATTRS_MAX: usize = 128;

const CAPABILITY: &[u8] = b"security.capability";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Name and value.
pub(super) type Xattr<'a> = (&'a [u8], &'a [u8]);
type Stored = Vec<(Vec<u8>, Vec<u8>)>;

/// Whether a layer may have an attribute. Capabilities, ACLs and the user's own are part of the image; labels of security modules are
/// the host's business, and `trusted.*` and `user.overlay.*` would tell overlayfs to show something else than what was checked.
pub(super) fn is_kept(name: &[u8]) -> bool {
    name == CAPABILITY
        || name == ACL_ACCESS
        || name == ACL_DEFAULT
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// The attributes of an entry that a layer may have. What the kernel would not take is refused, wherever the layer goes.
pub(super) fn kept(entry: &Entry) -> Result<Vec<Xattr<'_>>, UnpackError> {
    let bad = |why| Err(UnpackError::entry(&entry.path, why));
    let mut kept: Vec<Xattr<'_>> = Vec::new();
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_kept(name)) {
        if name.len() > XATTR_NAME_MAX || name.contains(&0) || name == b"user." {
            return bad("has an extended attribute whose name is not one");
        }
        if value.len() > XATTR_VALUE_MAX {
            return bad("has an extended attribute larger than 64 KiB");
        }
        if name == CAPABILITY && !is_capability(value) {
            return bad("has capabilities in a form that the kernel does not know");
        }
        if (name == ACL_ACCESS || name == ACL_DEFAULT) && entry.kind != Kind::Symlink {
            if Acl::parse(value).is_none() {
                return bad("has an access control list that is none");
            }
            if name == ACL_DEFAULT && entry.kind != Kind::Directory && value.len() > ACL_HEADER {
                return bad("has an access control list for what is in it, and is no directory");
            }
        }
        kept.push((name, value));
    }
    if kept.len() > XATTRS_MAX {
        return bad("has more than 128 extended attributes");
    }
    Ok(kept)
}

/// The attributes as the kernel stores them on an inode of this kind, and the mode, which a list for access is a part of.
pub(super) fn as_stored(entry: &Entry) -> Result<(u32, Stored), UnpackError> {
    let mut mode = entry.mode;
    let mut stored = Vec::new();
    for (name, value) in kept(entry)? {
        let has_own = matches!(entry.kind, Kind::File | Kind::Directory);
        let is_list = name == ACL_ACCESS || name == ACL_DEFAULT;
        if (name.starts_with(b"user.") && !has_own) || (is_list && entry.kind == Kind::Symlink) {
            continue;
        }
        if is_list {
            let Some(acl) = Acl::parse(value).filter(|acl| !acl.is_empty()) else { continue };
            if name == ACL_ACCESS {
                mode = (mode & 0o7000) | acl.mode();
                if acl.is_only_mode() {
                    continue;
                }
            }
        }
        stored.push((name.to_vec(), value.to_vec()));
    }
    Ok((mode, stored))
}

/// Version 2 or 3 of the kernel's `struct vfs_cap_data` (capabilities(7)).
fn is_capability(value: &[u8]) -> bool {
    let Some(magic) = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else { return false };
    matches!((magic & !0x00ff_ffff, value.len()), (0x0200_0000, 20) | (0x0300_0000, 24))
}

const ACL_HEADER: usize = 4;
const ACL_ENTRY: usize = 8;

/// An access control list (acl(5)), as the attribute has it: entries of tag and permissions.
struct Acl(Vec<(u16, u32)>);

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

impl Acl {
    /// None if it is not one that is valid: each of the three classes once and in order, and a mask where somebody is named.
    fn parse(value: &[u8]) -> Option<Acl> {
        let (version, entries) = value.split_first_chunk::<ACL_HEADER>()?;
        if u32::from_le_bytes(*version) != 2 || entries.len() % ACL_ENTRY != 0 {
            return None;
        }
        let mut acl = Acl(Vec::with_capacity(entries.len() / ACL_ENTRY));
        // The tag that has to come next, or one that may repeat.
        let mut after = 0;
        for entry in entries.chunks_exact(ACL_ENTRY) {
            let (tag, allowed) =
                (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let follows = match tag {
                USER_OBJ => after == 0,
                USER | GROUP_OBJ => matches!(after, USER_OBJ | USER),
                GROUP => matches!(after, GROUP_OBJ | GROUP),
                MASK => matches!(after, GROUP_OBJ | GROUP),
                OTHER => after == MASK || (after == GROUP_OBJ && !acl.names_somebody()),
                _ => false,
            };
            let names = matches!(tag, USER | GROUP);
            if !follows || allowed > 7 || (names && id == u32::MAX) {
                return None;
            }
            acl.0.push((tag, allowed.into()));
            after = tag;
        }
        (acl.is_empty() || after == OTHER).then_some(acl)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn names_somebody(&self) -> bool {
        self.0.iter().any(|(tag, _)| matches!(*tag, USER | GROUP))
    }

    /// Whether it says nothing that a mode cannot.
    fn is_only_mode(&self) -> bool {
        self.0.iter().all(|(tag, _)| matches!(*tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// The permission bits; the mask, if there is one, is what the group's show.
    fn mode(&self) -> u32 {
        self.0.iter().fold(0, |mode, (tag, allowed)| match *tag {
            USER_OBJ => mode | (allowed << 6),
            GROUP_OBJ => mode | (allowed << 3),
            MASK => (mode & !0o070) | (allowed << 3),
            OTHER => mode | allowed,
            _ => mode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for (tag, allowed, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(allowed.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    #[test]
    fn lists_are_checked_as_the_kernel_does() {
        let none = u32::MAX;
        let plain = list(&[(USER_OBJ, 7, none), (GROUP_OBJ, 5, none), (OTHER, 4, none)]);
        let acl = Acl::parse(&plain).unwrap();
        assert!(acl.is_only_mode());
        assert_eq!(acl.mode(), 0o754);
        let named = list(&[
            (USER_OBJ, 7, none),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, none),
            (MASK, 2, none),
            (OTHER, 0, none),
        ]);
        let acl = Acl::parse(&named).unwrap();
        assert!(!acl.is_only_mode());
        assert_eq!(acl.mode(), 0o720);
        for bad in [
            list(&[(USER_OBJ, 7, none), (OTHER, 4, none)]),
            list(&[(USER_OBJ, 8, none), (GROUP_OBJ, 5, none), (OTHER, 4, none)]),
            list(&[(USER_OBJ, 7, none), (USER, 6, 1), (GROUP_OBJ, 5, none), (OTHER, 4, none)]),
            list(&[
                (USER_OBJ, 7, none),
                (USER, 6, none),
                (GROUP_OBJ, 5, none),
                (MASK, 7, 0),
                (OTHER, 4, none),
            ]),
            list(&[(USER_OBJ, 7, none), (GROUP_OBJ, 5, none)]),
            vec![1, 0, 0, 0],
            vec![2, 0, 0],
            plain[..plain.len() - 1].to_vec(),
        ] {
            assert!(Acl::parse(&bad).is_none(), "{bad:?}");
        }
        assert!(Acl::parse(&[2, 0, 0, 0]).unwrap().is_empty());
    }
}
