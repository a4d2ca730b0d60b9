-- Always empty: what is put here for a moment leaves free pages in the database, which are room for later.
CREATE TABLE reserve (pages BLOB NOT NULL) STRICT;
