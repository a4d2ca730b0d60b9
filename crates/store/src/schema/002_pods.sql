-- Pods and containers. `request` is what was asked, as JSON; `state` and `facts` are NULL while the object is being made, so that a
-- daemon started after a crash knows what was left unfinished.
CREATE TABLE pods (
    id         TEXT    NOT NULL PRIMARY KEY,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    uid        TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    request    TEXT    NOT NULL,
    state      TEXT,
    UNIQUE (namespace, name, uid, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
    id         TEXT    NOT NULL PRIMARY KEY,
    pod        TEXT    NOT NULL REFERENCES pods (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    request    TEXT    NOT NULL,
    facts      TEXT,
    state      TEXT,
    UNIQUE (pod, name, attempt)
) STRICT, WITHOUT ROWID;
