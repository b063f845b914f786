-- +goose Up

-- The installation's one key, from which all pods derive those of what clients
-- carry (package seal). The first pod that looks for it makes it. Whoever
-- deletes the row ends what was sealed before: pods that start then use another.
CREATE TABLE sealing_keys (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea   NOT NULL CHECK (octet_length(key) = 32)
);

-- +goose Down
DROP TABLE sealing_keys;
