-- Images, the names that lead to them, the layers they are made of, and the root file systems that stand on those layers.

CREATE TABLE images (
    -- The digest of the configuration, "sha256:...".
    id TEXT PRIMARY KEY,
    -- The configuration, byte for byte.
    config BLOB NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0,
    -- Nanoseconds since 1970.
    pulled_at INTEGER NOT NULL
) STRICT;

-- A tag ("docker.io/library/busybox:1") or a digest ("docker.io/library/busybox@sha256:...") leads to one image.
CREATE TABLE image_references (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX image_references_by_image ON image_references (image);

CREATE TABLE layers (
    -- The digest of the uncompressed archive; or "graft:<chain id>" for what a layer means only above its parents.
    id TEXT PRIMARY KEY,
    -- The directory below layers/.
    directory TEXT NOT NULL UNIQUE,
    -- What it takes on disk.
    bytes INTEGER NOT NULL,
    inodes INTEGER NOT NULL,
    -- What unpacking left open until the layers below are known, as JSON.
    loose_ends TEXT NOT NULL
) STRICT;

-- Which blob was once verified to unpack to which layer. It spares the download where only the blob's digest is known.
CREATE TABLE layer_blobs (
    digest TEXT PRIMARY KEY,
    layer TEXT NOT NULL REFERENCES layers (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_layer ON layer_blobs (layer);

-- Position 0 is the lowest.
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (layer);

CREATE TABLE root_filesystems (
    container TEXT PRIMARY KEY,
    image TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Kept apart from image_layers, so that the image may go while a container still stands on its layers.
CREATE TABLE root_filesystem_layers (
    container TEXT NOT NULL REFERENCES root_filesystems (container) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (container, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX root_filesystem_layers_by_layer ON root_filesystem_layers (layer);
