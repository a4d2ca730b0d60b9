-- The manifest of an image and the indexes that led to it, byte for byte as a registry or an archive had them. An image of an older
-- release has none.
CREATE TABLE image_manifests (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (image, digest)
) STRICT, WITHOUT ROWID;
