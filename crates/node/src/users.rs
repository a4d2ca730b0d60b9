//! Pods with users of their own: whether this node can have them, and their maps in the shim's words.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use model::request::{IdMapping, UserNamespace};
use shim::config::{IdRange, PodUsers};
use sys::mount::Change;

use crate::context::{Context, blocking};
use crate::handlers::Features;

/// Whether the kernel and the file systems of images and state can map ids. It is tried once.
pub(crate) async fn possible(context: &Arc<Context>) -> bool {
    if let Some(known) = context.can_map_ids.get() {
        return *known;
    }
    let context = context.clone();
    let trial = move || *context.can_map_ids.get_or_init(|| attempt(&context));
    blocking(trial).await
}

/// What the runtime of this program can do on this node.
pub(crate) async fn builtin_features(context: &Arc<Context>) -> Features {
    Features { recursive_read_only: true, user_namespaces: possible(context).await }
}

/// The pod's files are in the state directory, and mounted with their ids mapped too.
fn attempt(context: &Context) -> bool {
    let files = map_ids_of(&context.config.state_dir);
    if let Err(error) = &files {
        let path = context.config.state_dir.display();
        tracing::info!(%path, %error, "pods cannot have users of their own here");
    }
    files.is_ok() && context.images.rootfs().can_map_ids()
}

fn map_ids_of(folder: &Path) -> std::io::Result<()> {
    let range = [sys::users::IdRange { inside: 0, outside: 65_536, count: 65_536 }];
    let users = sys::users::new(&range, &range)?;
    let mount = sys::mount::clone_mount(std::fs::File::open(folder)?.as_fd(), false)?;
    let change = Change { id_map: Some(users.as_fd()), ..Change::default() };
    sys::mount::set_attributes(mount.as_fd(), false, &change)
}

/// The maps as the pod's shim takes them.
pub(crate) fn for_shim(users: &UserNamespace) -> PodUsers {
    let ranges = |mappings: &[IdMapping]| {
        let range = |mapping: &IdMapping| IdRange {
            inside: mapping.container_id,
            outside: mapping.host_id,
            count: mapping.length,
        };
        mappings.iter().map(range).collect()
    };
    PodUsers { uids: ranges(&users.uids), gids: ranges(&users.gids) }
}
