//! The mount API by descriptors: fsopen, fsmount, open_tree, move_mount and mount_setattr with id maps.
