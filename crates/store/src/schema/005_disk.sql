-- What layers are checked against, what was found, and since when they are in nobody's way.

-- What the layer's bytes were when it was unpacked, as "<kind>:<value>"; NULL: an earlier release unpacked it.
ALTER TABLE layers ADD COLUMN checksum TEXT;
-- What a check found wrong. It is not given to another pull, and stays until nobody stands on it.
ALTER TABLE layers ADD COLUMN damage TEXT;
-- Nanoseconds since 1970: since when no image, no root file system and no pull is known to need it.
ALTER TABLE layers ADD COLUMN unneeded_since INTEGER;
