-- +goose Up

CREATE TABLE users (
    id            uuid        PRIMARY KEY,
    -- As its owner wrote it. RFC 5321 bounds an address at 254 octets.
    email         text        NOT NULL CHECK (octet_length(email) BETWEEN 3 AND 254),
    display_name  text        NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 80),
    -- A PHC string: it carries its own parameters, so that they can be raised.
    password_hash text        NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
    created_at    timestamptz NOT NULL
);

-- Two accounts must not differ by case alone: people don't remember which they used.
CREATE UNIQUE INDEX users_email ON users (lower(email));

CREATE TABLE sessions (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    -- The number of the newest refresh token. Tokens themselves are never kept:
    -- each can be made again from its number and the secret, with a key that is
    -- not in the database.
    counter      bigint      NOT NULL CHECK (counter >= 1),
    secret       bytea       NOT NULL CHECK (octet_length(secret) = 32),
    created_at   timestamptz NOT NULL,
    rotated_at   timestamptz NOT NULL,
    repeated_at  timestamptz,
    late_repeats integer     NOT NULL DEFAULT 0 CHECK (late_repeats >= 0),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    end_reason   text,
    -- An end without its reason can't be explained to its user.
    CONSTRAINT sessions_end CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);

-- For the cascade.
CREATE INDEX sessions_user ON sessions (user_id);
-- For the sweeps; each session stands in one of them only.
CREATE INDEX sessions_expiry ON sessions (expires_at) WHERE ended_at IS NULL;
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;

-- +goose Down
DROP TABLE sessions;
DROP TABLE users;
