-- What the peer keeps: less than Marketplane, which also keeps a stream for each
-- user, a sequence for each conversation, and each message once for its client id.
CREATE TABLE members (
    user_id         uuid NOT NULL,
    conversation_id uuid NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
);

CREATE TABLE messages (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_id uuid        NOT NULL,
    sender_id       uuid        NOT NULL,
    client_id       uuid        NOT NULL,
    body            jsonb       NOT NULL,
    sent_at         timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX messages_of_conversation ON messages (conversation_id, id);
