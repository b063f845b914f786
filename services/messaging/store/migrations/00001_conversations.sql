-- +goose Up

-- A conversation is about one task, between its client and one tasker.
CREATE TABLE conversations (
    id         uuid        PRIMARY KEY,
    task_id    uuid        NOT NULL,
    tasker_id  uuid        NOT NULL,
    title      text        NOT NULL,
    -- The seq of the newest message. Whoever writes a message holds this row's
    -- lock, which makes seq gapless and keeps commit order.
    head       bigint      NOT NULL DEFAULT 0 CHECK (head >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- A second offer of the same tasker goes on in the same conversation.
    CONSTRAINT conversations_one_per_pair UNIQUE (task_id, tasker_id)
);

CREATE TABLE members (
    conversation_id uuid   NOT NULL REFERENCES conversations (id),
    user_id         uuid   NOT NULL,
    role            text   NOT NULL CHECK (role IN ('client', 'tasker')),
    -- Everything up to this seq has been read; it only grows.
    read_seq        bigint NOT NULL DEFAULT 0 CHECK (read_seq >= 0),
    PRIMARY KEY (conversation_id, user_id)
);

-- A user's conversations, newest first: ids are UUIDv7.
CREATE INDEX members_by_user ON members (user_id, conversation_id DESC);

CREATE TABLE messages (
    conversation_id uuid        NOT NULL REFERENCES conversations (id),
    seq             bigint      NOT NULL CHECK (seq > 0),
    id              uuid        NOT NULL,
    sender_id       uuid        NOT NULL,
    -- The sender's idempotency key: a message that is sent again, because its
    -- acknowledgement was lost, is the same message.
    client_id       uuid        NOT NULL,
    body            jsonb       NOT NULL CHECK (jsonb_typeof(body) = 'object'),
    sent_at         timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    CONSTRAINT messages_once UNIQUE (conversation_id, sender_id, client_id)
);

-- Every user has one durable stream. All that belongs to a stream has the user
-- in its key and in every query, so that it can be partitioned by user.
CREATE TABLE streams (
    user_id uuid   PRIMARY KEY,
    -- The newest offset. Whoever appends holds this row's lock, taken in the
    -- order of user ids, so that offsets have no gap and writers no deadlock.
    head    bigint NOT NULL CHECK (head >= 0),
    -- Items up to this offset are no longer kept.
    tail    bigint NOT NULL DEFAULT 0 CHECK (tail BETWEEN 0 AND head)
);

CREATE TABLE stream_items (
    user_id    uuid        NOT NULL,
    "offset"   bigint      NOT NULL CHECK ("offset" > 0),
    kind       text        NOT NULL CHECK (kind IN ('message', 'task', 'receipt', 'session')),
    payload    jsonb       NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, "offset")
);

-- Old items are looked for by age. Not BRIN, small as it would be: the space of
-- deleted rows is used again, its ranges never become narrower, and after the
-- first round every look would read the whole table.
CREATE INDEX stream_items_by_age ON stream_items (created_at);

-- +goose Down
DROP TABLE stream_items;
DROP TABLE streams;
DROP TABLE messages;
DROP TABLE members;
DROP TABLE conversations;
