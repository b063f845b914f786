-- +goose Up

CREATE TABLE tasks (
    -- UUIDv7, made by the service: the order of ids is the order of posting.
    id              uuid        PRIMARY KEY,
    -- Users live in another service's schema: no foreign key can hold them.
    client_id       uuid        NOT NULL,
    tasker_id       uuid,
    title           text        NOT NULL,
    description     text        NOT NULL,
    -- Offers and, later, payments are reckoned with it: nothing free or negative.
    budget_amount   bigint      NOT NULL CHECK (budget_amount > 0),
    budget_currency text        NOT NULL CHECK (budget_currency ~ '^[A-Z]{3}$'),
    location        text        NOT NULL DEFAULT '',
    -- The service's transition table decides how a task gets here; this keeps out
    -- what no release has a name for. A new status is added here one release
    -- before it is written.
    status          text        NOT NULL CHECK (status IN ('open', 'assigned', 'in_progress', 'submitted', 'completed', 'cancelled')),
    submission_note text        NOT NULL DEFAULT '',
    -- What an ETag shows and If-Match compares: every change takes the next one.
    version         bigint      NOT NULL CHECK (version > 0),
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    -- Nobody hires themselves.
    CONSTRAINT tasks_two_people CHECK (tasker_id <> client_id),
    -- An open task has nobody yet, and work needs somebody who does it.
    CONSTRAINT tasks_tasker_fits_status CHECK (
        CASE status
            WHEN 'open' THEN tasker_id IS NULL
            WHEN 'cancelled' THEN true
            ELSE tasker_id IS NOT NULL
        END
    )
);

-- The three ways to find a task, each newest first.
CREATE INDEX tasks_open ON tasks (id) WHERE status = 'open';
CREATE INDEX tasks_by_client ON tasks (client_id, id);
CREATE INDEX tasks_by_tasker ON tasks (tasker_id, id) WHERE tasker_id IS NOT NULL;

CREATE TABLE offers (
    id             uuid        PRIMARY KEY,
    task_id        uuid        NOT NULL REFERENCES tasks (id),
    tasker_id      uuid        NOT NULL,
    price_amount   bigint      NOT NULL CHECK (price_amount > 0),
    price_currency text        NOT NULL CHECK (price_currency ~ '^[A-Z]{3}$'),
    message        text        NOT NULL DEFAULT '',
    status         text        NOT NULL CHECK (status IN ('pending', 'accepted', 'superseded', 'withdrawn')),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

-- A tasker has one word out at a time.
CREATE UNIQUE INDEX offers_one_pending ON offers (task_id, tasker_id) WHERE status = 'pending';
-- Two accepts can't both win, whatever the code does.
CREATE UNIQUE INDEX offers_one_accepted ON offers (task_id) WHERE status = 'accepted';
CREATE INDEX offers_by_task ON offers (task_id, id);
CREATE INDEX offers_by_tasker ON offers (task_id, tasker_id, id);

-- Answers to requests that create something, kept for those who ask again. A row
-- is written in the transaction of the effect, so neither exists without the
-- other. Package idempotency reads and writes it.
CREATE TABLE idempotency_keys (
    principal  uuid        NOT NULL,
    route      text        NOT NULL,
    key        text        NOT NULL,
    -- SHA-256 of what was asked: the same key with another body is a mistake.
    input_hash bytea       NOT NULL CHECK (octet_length(input_hash) = 32),
    status     smallint    NOT NULL,
    body       bytea       NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (principal, route, key)
);

CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- +goose Down
DROP TABLE idempotency_keys;
DROP TABLE offers;
DROP TABLE tasks;
