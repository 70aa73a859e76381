-- Who follows the change stream, and what proves that it was not rewritten.

-- Consumer groups: the offset up to which each has dealt with the stream. Only the group itself moves it. Those of
-- webhooks and sinks have names with a colon, which no client's group can have.
CREATE TABLE event_groups (
    name         $text  PRIMARY KEY,
    event_offset BIGINT NOT NULL,
    committed_ms BIGINT NOT NULL
) $clustered;

-- Targets that events are POSTed to. kinds: a JSON list, empty for all. Each has a row of event_groups, "webhook:" and its
-- name. failures and last_error: of the attempts since the last that worked.
CREATE TABLE webhooks (
    name        $text    PRIMARY KEY,
    url         $text    NOT NULL,
    secret      $text    NOT NULL,
    path_prefix $text    NOT NULL,
    kinds       $text    NOT NULL,
    paused      SMALLINT NOT NULL,
    failures    INTEGER  NOT NULL,
    last_error  $text    NOT NULL,
    created_ms  BIGINT   NOT NULL
) $clustered;

-- Events that a webhook would not take, whole, since retention may drop them from the stream. retry 1: to be sent again.
CREATE TABLE dead_letters (
    webhook      $text    NOT NULL,
    event_offset BIGINT   NOT NULL,
    attempts     INTEGER  NOT NULL,
    failed_ms    BIGINT   NOT NULL,
    error        $text    NOT NULL,
    event        $blob    NOT NULL,
    retry        SMALLINT NOT NULL,
    PRIMARY KEY (webhook, event_offset)
) $clustered;

-- Nodes of the Merkle tree (RFC 6962) over the events' hashes: those of level 8, 16, 24 ... that are complete, each over
-- 256 of the level 8 below (level 0: events). Number n of a level is over leaves n * 2^level and on, from 0. Kept for ever, so that
-- proofs between sizes that are multiples of 256 outlive the events. Events that are not in a complete node of level 8 are never dropped.
CREATE TABLE event_tree (
    level  SMALLINT NOT NULL,
    number BIGINT   NOT NULL,
    hash   $blob    NOT NULL,
    PRIMARY KEY (level, number)
) $clustered;

-- Signed states of that tree. Never changed, never deleted.
CREATE TABLE checkpoints (
    size    BIGINT PRIMARY KEY,
    root    $blob  NOT NULL,
    made_ms BIGINT NOT NULL,
    note    $text  NOT NULL
);
