-- What is needed beside a layer's files to make its archive again, byte for byte. A layer of an older release has none.
CREATE TABLE layer_outlines (
    layer TEXT PRIMARY KEY REFERENCES layers (id) ON DELETE CASCADE,
    -- Bytes of the archive.
    size INTEGER NOT NULL,
    -- In the form of image/src/tar/outline.rs.
    outline BLOB NOT NULL
) STRICT;
