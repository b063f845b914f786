-- +goose Up

-- What happened in one service and matters to another. A row is written in the
-- transaction of the change that it tells of, so neither exists without the other.
CREATE TABLE events (
    -- Commit order can't be read from a growing number alone: a later number may
    -- commit first. Readers order by (xid, position) and stop at the snapshot's
    -- xmin, below which every transaction has ended.
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    position    bigint      GENERATED ALWAYS AS IDENTITY,
    id          uuid        NOT NULL,
    type        text        NOT NULL,
    subject     text        NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    data        jsonb       NOT NULL,
    PRIMARY KEY (xid, position)
);

-- A reader of a few types must not pass over everything else at every look.
CREATE INDEX events_by_type ON events (type, xid, position);

-- Where each consumer is. A consumer moves on in the transaction of its effect.
CREATE TABLE consumers (
    name     text   PRIMARY KEY,
    -- The role that reads under this name; nobody else may move it.
    owner    name   NOT NULL DEFAULT current_user,
    xid      xid8   NOT NULL DEFAULT '0',
    position bigint NOT NULL DEFAULT 0
);

ALTER TABLE consumers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON consumers USING (owner = current_user) WITH CHECK (owner = current_user);

-- +goose Down
DROP TABLE consumers;
DROP TABLE events;
