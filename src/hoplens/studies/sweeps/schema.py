"""Tables of the run store, and how older ones are brought up to date."""

from __future__ import annotations

import sqlite3

from hoplens.errors import FileError
from hoplens.text import printable

APPLICATION = 0x686F706C  # "hopl": marks the file as ours
VERSION = 2

TABLES = """
CREATE TABLE studies (
    id TEXT PRIMARY KEY,          -- content hash of its rows
    name TEXT NOT NULL,
    source TEXT NOT NULL,         -- the study as JSON
    created REAL NOT NULL,        -- seconds since 1970
    versions TEXT NOT NULL        -- of the libraries that planned it, JSON
);
CREATE TABLE members (            -- rows of a study's tables
    study TEXT NOT NULL REFERENCES studies (id),
    position INTEGER NOT NULL,
    part TEXT NOT NULL,
    task TEXT NOT NULL,
    method TEXT NOT NULL,
    strength REAL NOT NULL,
    seed INTEGER NOT NULL,
    role TEXT NOT NULL,
    key TEXT NOT NULL,            -- of the network; may not be there yet
    PRIMARY KEY (study, position)
) WITHOUT ROWID;
CREATE INDEX members_by_key ON members (key);
CREATE TABLE shards (             -- what each study has to run, as it was first cut
    study TEXT NOT NULL REFERENCES studies (id),
    position INTEGER NOT NULL,
    keys TEXT NOT NULL,           -- of its networks, JSON list
    state TEXT NOT NULL CHECK (state IN ('open', 'done', 'failed')),
    attempts INTEGER NOT NULL,    -- workers lost over it
    reason TEXT NOT NULL,         -- why it failed
    seconds REAL NOT NULL,
    finished REAL,                -- seconds since 1970
    PRIMARY KEY (study, position)
) WITHOUT ROWID;
CREATE TABLE networks (
    key TEXT PRIMARY KEY,         -- content hash of config
    config TEXT NOT NULL,         -- all that fixes its numbers, JSON
    seed INTEGER NOT NULL,
    metrics TEXT NOT NULL,        -- JSON; null is NaN
    seconds TEXT NOT NULL,        -- its share of the shard's time by part, JSON
    versions TEXT NOT NULL,       -- JSON
    device TEXT NOT NULL,
    worker TEXT NOT NULL,         -- host:process
    finished REAL NOT NULL,
    shard TEXT NOT NULL,          -- content hash of the shard it was trained in
    slot INTEGER NOT NULL,        -- its place there
    tensors TEXT                  -- file with its tensors, beside the database
);
"""

# what brings a store of version n to version n + 1
MIGRATIONS = {
    # version 1 did not say who computed a network
    1: ("ALTER TABLE networks ADD COLUMN worker TEXT NOT NULL DEFAULT ''",),
}


def version_of(connection: sqlite3.Connection, place: str) -> int:
    """Return the schema version of a store, 0 for an empty file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    alien = "SELECT type FROM sqlite_master WHERE type NOT IN ('table', 'index')"
    (other,) = connection.execute(alien).fetchone() or ("",)
    if other:  # hoplens makes none; they would change what is read or written
        raise FileError(
            f"{printable(place)} is no run store: it holds a {printable(other)}; choose another one"
        )
    if not tables:
        return 0
    if application != APPLICATION:
        raise FileError(f"{printable(place)} is a database of another program; choose another folder")
    if version > VERSION:
        raise FileError(
            f"{printable(place)} has schema version {version}, this hoplens knows up to {VERSION}; use a "
            "later hoplens"
        )
    return int(version)


def bring_up_to_date(connection: sqlite3.Connection, version: int) -> None:
    """Create the tables (version 0) or migrate them, in one transaction: wholly or not at all."""
    if version == VERSION:
        return
    steps = [TABLES] if version == 0 else [";".join(MIGRATIONS[n]) for n in range(version, VERSION)]
    marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}"
    try:
        connection.executescript(f"BEGIN EXCLUSIVE; {';'.join(steps)}; {marks}; COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


__all__ = ["APPLICATION", "MIGRATIONS", "TABLES", "VERSION", "bring_up_to_date", "version_of"]
