-- What Hadoop's clients need beside the core: ACLs and delegation tokens.

-- acl has the entries of the inode's access control list that its mode bits do not say, as HDFS writes them
-- (`user:bob:r-x,group::rwx,default:user::rwx`), sorted; '' is none. With access entries, the group bits of
-- mode are the mask, and group:: is the owning group's own entry. It stands in the row of the inode, because every step
-- of every path needs it.
ALTER TABLE inodes ADD COLUMN acl $text NOT NULL DEFAULT '';

-- Delegation tokens that are good: a token whose sequence has no row here was cancelled or has expired. secret is what the
-- token's password is made with (namenode/tokens.py).
CREATE TABLE delegation_tokens (
    sequence   BIGINT PRIMARY KEY,
    owner      $text  NOT NULL,
    renewer    $text  NOT NULL,
    secret     $blob  NOT NULL,
    expires_ms BIGINT NOT NULL,
    max_ms     BIGINT NOT NULL
);
INSERT INTO counters (name, next) VALUES ('token', 1);
