-- Content: CID blocks that the cluster holds, beside the leaves of files.

-- One row for each CID block that is held in an ordinary block of its own (block_id: exactly its bytes, one reference on it). The
-- leaves of a BLAKE3 file are no rows: they are chunks of the file's blocks. content_id comes from the counter of inodes, so that
-- file_blocks can hold the leaves of a file without a path under it (leaves = 1, on the row of the file's root).
-- refs counts what holds the row and all below it: rows of content_links with it as child, recursive pins, rows of file_dags and
-- cached_cids. direct counts direct pins, which hold the row alone. links counts its own rows of content_links as parent.
-- complete = 1: everything below it is held as well, and can't go as long as the row's refs are not 0.
-- A row with refs = 0 is loose: the collector takes it (or, with direct > 0, what hangs on it) when it was not touched for long
-- enough, and by no add that still goes on (adds).
CREATE TABLE contents (
    content_id BIGINT   PRIMARY KEY,
    multihash  $blob    NOT NULL UNIQUE,
    codec      INTEGER  NOT NULL,
    block_id   BIGINT   NOT NULL,
    refs       INTEGER  NOT NULL,
    direct     INTEGER  NOT NULL,
    links      INTEGER  NOT NULL,
    leaves     SMALLINT NOT NULL,
    complete   SMALLINT NOT NULL,
    touched_ms BIGINT   NOT NULL
);
CREATE INDEX contents_loose ON contents (touched_ms) WHERE refs = 0;

-- What a CID block links to, each child once, however often it is linked.
CREATE TABLE content_links (
    parent_id BIGINT NOT NULL,
    child_id  BIGINT NOT NULL,
    PRIMARY KEY (parent_id, child_id)
) $clustered;

-- The DAG of a file that has more than one chunk: the content row of its root, which it holds. A row is there only while it is true of
-- the file's present blocks: whoever changes them deletes it. Files of at most one chunk need none, their block's digest is their CID.
CREATE TABLE file_dags (
    inode_id   BIGINT PRIMARY KEY,
    content_id BIGINT NOT NULL
);
CREATE INDEX file_dags_by_content ON file_dags (content_id);

-- CIDs of directories as they were computed on request. True as long as the directory is at path and no event
-- after event_offset is about anything below it.
CREATE TABLE cached_cids (
    inode_id     BIGINT PRIMARY KEY,
    path         $text  NOT NULL,
    event_offset BIGINT NOT NULL,
    content_id   BIGINT NOT NULL,
    tsize        BIGINT NOT NULL
);

-- Pins, by what they pin and the name they were given ("" for none). kind: 1 recursive, 2 direct.
CREATE TABLE pins (
    content_id BIGINT   NOT NULL,
    kind       SMALLINT NOT NULL,
    name       $text    NOT NULL,
    codec      INTEGER  NOT NULL,
    version    SMALLINT NOT NULL,
    owner      $text    NOT NULL,
    pinned_ms  BIGINT   NOT NULL,
    PRIMARY KEY (content_id, kind, name)
) $clustered;

-- Adds that go on, by lease holder: nothing that was touched since the earliest began is collected. The row of a holder
-- that was silent, and so forgotten (lease_holders), counts no longer.
CREATE TABLE adds (
    holder     $text  PRIMARY KEY,
    started_ms BIGINT NOT NULL
) $clustered;
