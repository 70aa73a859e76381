-- What NameNodes that do not repair tell the one that does.

-- Blocks that may have too few or too many good copies, as somebody learnt who asked for it or was told of it at another
-- NameNode. The holder of the job "repair" takes rows out and looks at these blocks; a row that is never taken, or taken twice, does no
-- harm: the scan finds the same, later.
CREATE TABLE repair_news (
    block_id BIGINT PRIMARY KEY
);
