-- What operators decide about DataNodes and the whole cluster. Every NameNode reads it, so that it holds
-- whichever one is asked, and after a restart.

-- datanodes.admin_state: 0 in service, 1 decommissioning, 2 decommissioned, 3 entering maintenance, 4 in maintenance.
-- admin_until_ms: when maintenance ends by itself (0: it does not). admin_left and admin_total: blocks of a node in
-- state 1 or 3 that have too few copies elsewhere now, and had when it began; written by whoever holds the job "admin".
ALTER TABLE datanodes ADD COLUMN admin_until_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE datanodes ADD COLUMN admin_since_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE datanodes ADD COLUMN admin_left BIGINT NOT NULL DEFAULT 0;
ALTER TABLE datanodes ADD COLUMN admin_total BIGINT NOT NULL DEFAULT 0;

-- Orders for the whole cluster, each a JSON object under its name: "safe_mode" (there while an operator keeps
-- it on), "balancer" (the last run: what was asked for, how far it is).
CREATE TABLE orders (
    name       $text  PRIMARY KEY,
    value      $text  NOT NULL,
    changed_ms BIGINT NOT NULL
) $clustered;
