-- As what images were admitted, so that a container may be made of them later without asking a registry again.
CREATE TABLE image_admissions (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    -- What was met, in the form of image/src/admission.rs.
    requirement TEXT NOT NULL,
    PRIMARY KEY (image, requirement)
) STRICT, WITHOUT ROWID;
