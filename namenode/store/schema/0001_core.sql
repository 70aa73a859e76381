-- Schema of the metadata store, in the subset of SQL that SQLite and PostgreSQL share.
--
-- Three words are filled in by the dialect: $blob (BLOB, BYTEA), $text (TEXT, TEXT COLLATE "C": names
-- must sort by their UTF-8 bytes) and $clustered (WITHOUT ROWID on SQLite, nothing on PostgreSQL:
-- the table is stored in the order of its primary key). Times are milliseconds since 1970 UTC.

-- Facts about the database itself: format_version, cluster_id, created_ms.
CREATE TABLE meta (
    name  $text PRIMARY KEY,
    value $text NOT NULL
) $clustered;

-- The next free number of each kind of id (inode, block, generation, node, event). Ids are taken in ranges, so that
-- this row is not written by every operation; numbers left over by a crash are never used. No id is ever
-- given twice: a DataNode that comes back after years can't be mistaken.
CREATE TABLE counters (
    name $text  PRIMARY KEY,
    next BIGINT NOT NULL
) $clustered;

-- The tree. A row is found by its parent and name, so listing a directory is one scan of neighbours and
-- creating a file is one insert that touches no row of its parent. The root is (0, '') with inode_id 1.
-- Parent 2 is no directory: below it wait unlinked trees (their name is their inode id) for the reaper, and nothing
-- below it can be reached by a path. A directory's mtime_ms is written only by operations on the directory
-- itself; a newer time of its children is not copied into it.
-- kind: 1 directory, 2 file. flags: 1 has a row in quotas, 2 has rows in xattrs, 4 open for write (has a row in leases).
-- length is the sum of the file's blocks (for the last, open one: what was synced).
CREATE TABLE inodes (
    parent_id   BIGINT   NOT NULL,
    name        $text    NOT NULL,
    inode_id    BIGINT   NOT NULL,
    kind        SMALLINT NOT NULL,
    mode        SMALLINT NOT NULL,
    flags       SMALLINT NOT NULL,
    replication SMALLINT NOT NULL,
    owner       $text    NOT NULL,
    grp         $text    NOT NULL,
    mtime_ms    BIGINT   NOT NULL,
    atime_ms    BIGINT   NOT NULL,
    length      BIGINT   NOT NULL,
    block_size  BIGINT   NOT NULL,
    PRIMARY KEY (parent_id, name)
) $clustered;
CREATE UNIQUE INDEX inodes_by_id ON inodes (inode_id);

-- Which blocks make a file, in order (ordinal from 0). Several files may share a block.
CREATE TABLE file_blocks (
    inode_id BIGINT  NOT NULL,
    ordinal  INTEGER NOT NULL,
    block_id BIGINT  NOT NULL,
    PRIMARY KEY (inode_id, ordinal)
) $clustered;

-- Blocks. digest is NULL while the block is under construction (then it has a row in open_blocks) and never changes
-- afterwards, nor do length and generation. refs counts the rows of file_blocks that name it; the operation
-- that takes the last one also marks its replicas for deletion and removes the block. replication is what its files ask for (the largest).
CREATE TABLE blocks (
    block_id    BIGINT   PRIMARY KEY,
    generation  BIGINT   NOT NULL,
    length      BIGINT   NOT NULL,
    refs        INTEGER  NOT NULL,
    replication SMALLINT NOT NULL,
    digest      $blob
);

-- Blocks under construction, each of exactly one file. length in blocks is what was synced. base_* say with which bytes of
-- which finalized block it begins (append, truncate); that block keeps a reference until the new one is finalized.
-- recovery_generation is set while a DataNode leads the recovery of the block.
CREATE TABLE open_blocks (
    block_id            BIGINT PRIMARY KEY,
    inode_id            BIGINT NOT NULL,
    base_block_id       BIGINT,
    base_length         BIGINT,
    recovery_generation BIGINT,
    recovery_node       BIGINT,
    recovery_ms         BIGINT
);
CREATE INDEX open_blocks_by_inode ON open_blocks (inode_id);

-- Where replicas are. Block reports correct these rows. state: 0 good, 1 being written there (a pipeline target),
-- 2 to be deleted, 3 corrupt. A good row has the block's own generation.
CREATE TABLE replicas (
    block_id   BIGINT   NOT NULL,
    node_id    BIGINT   NOT NULL,
    state      SMALLINT NOT NULL,
    generation BIGINT   NOT NULL,
    PRIMARY KEY (block_id, node_id)
) $clustered;
CREATE INDEX replicas_by_node ON replicas (node_id, block_id);
CREATE INDEX replicas_attention ON replicas (node_id, state) WHERE state <> 0;

-- Files open for write: exactly one row for each inode with flag 4.
CREATE TABLE leases (
    inode_id BIGINT PRIMARY KEY,
    holder   $text  NOT NULL
);

-- When each writer was last heard of. A holder silent for the lease timeout loses its files and allocations.
CREATE TABLE lease_holders (
    holder     $text  PRIMARY KEY,
    renewed_ms BIGINT NOT NULL
) $clustered;

-- Block ids given out before they belong to a file. A replica whose block is in no row of blocks and
-- in no allocation is an orphan. PutFiles takes only blocks of a living allocation of the same holder.
CREATE TABLE allocations (
    first_block_id BIGINT PRIMARY KEY,
    last_block_id  BIGINT NOT NULL,
    generation     BIGINT NOT NULL,
    replication    SMALLINT NOT NULL,
    holder         $text  NOT NULL
);
CREATE INDEX allocations_by_holder ON allocations (holder);

CREATE TABLE xattrs (
    inode_id BIGINT NOT NULL,
    name     $text  NOT NULL,
    value    $blob  NOT NULL,
    PRIMARY KEY (inode_id, name)
) $clustered;

-- Quotas of directories with flag 1. A limit of -1 is none. names_used counts the directory itself and all below it;
-- space_used is length times replication of all files below it, an open block counted whole. Unlinked trees are taken off when they are unlinked.
CREATE TABLE quotas (
    inode_id    BIGINT PRIMARY KEY,
    names_limit BIGINT NOT NULL,
    space_limit BIGINT NOT NULL,
    names_used  BIGINT NOT NULL,
    space_used  BIGINT NOT NULL
);

-- Answers to mutations, so that a resent request is answered and not repeated. Kept for ten minutes at least.
-- answers is a msgpack map from call ids, first_call to last_call, to encoded answers: those of one
-- client that were committed together. A call is in one row at most (namenode/store/answers.py).
CREATE TABLE requests (
    client_id  $blob  NOT NULL,
    first_call BIGINT NOT NULL,
    last_call  BIGINT NOT NULL,
    done_ms    BIGINT NOT NULL,
    answers    $blob  NOT NULL,
    PRIMARY KEY (client_id, first_call)
) $clustered;

-- The change stream, sealed: offsets are dense from 1, hash is the BLAKE3 of the previous hash and this
-- entry's encoding (namenode/events.py).
CREATE TABLE events (
    event_offset BIGINT PRIMARY KEY,
    time_ms      BIGINT NOT NULL,
    kind         $text  NOT NULL,
    path         $text  NOT NULL,
    destination  $text  NOT NULL,
    user_name    $text  NOT NULL,
    inode_id     BIGINT NOT NULL,
    detail       $text  NOT NULL,
    hash         $blob  NOT NULL
);

-- Events written by operations and not sealed yet, where several writers commit at once (PostgreSQL).
-- The sealer moves them to events in the order of event_id.
CREATE TABLE pending_events (
    event_id    BIGINT PRIMARY KEY,
    time_ms     BIGINT NOT NULL,
    kind        $text  NOT NULL,
    path        $text  NOT NULL,
    destination $text  NOT NULL,
    user_name   $text  NOT NULL,
    inode_id    BIGINT NOT NULL,
    detail      $text  NOT NULL
);

-- DataNodes ever registered. node_id is what replicas name; uuid is the node's own identity, kept on its volumes.
-- admin_state: see 0002_repair.sql.
CREATE TABLE datanodes (
    node_id       BIGINT   PRIMARY KEY,
    uuid          $text    NOT NULL UNIQUE,
    host          $text    NOT NULL,
    data_address  $text    NOT NULL,
    http_address  $text    NOT NULL,
    socket_path   $text    NOT NULL,
    rack          $text    NOT NULL,
    admin_state   SMALLINT NOT NULL,
    registered_ms BIGINT   NOT NULL
);

-- Background jobs: whoever holds the unexpired lease of a row works on it, from its cursor on.
CREATE TABLE jobs (
    name       $text  PRIMARY KEY,
    holder     $text  NOT NULL,
    expires_ms BIGINT NOT NULL,
    cursor     $text  NOT NULL
) $clustered;
