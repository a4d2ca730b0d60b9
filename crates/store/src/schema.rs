//! The schema as numbered steps. A step that was released is never changed; a change is a new step.

/// The steps in order; the database's `user_version` counts how many it has.
pub const STEPS: &[(&str, &str)] = &[
    ("001_images", include_str!("schema/001_images.sql")),
    ("002_pods", include_str!("schema/002_pods.sql")),
    ("003_manifests", include_str!("schema/003_manifests.sql")),
    ("004_reserve", include_str!("schema/004_reserve.sql")),
    ("005_disk", include_str!("schema/005_disk.sql")),
    ("006_outlines", include_str!("schema/006_outlines.sql")),
    ("007_admissions", include_str!("schema/007_admissions.sql")),
];

/// The version that this program writes.
pub fn version() -> i64 {
    STEPS.len() as i64
}
