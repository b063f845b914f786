-- +goose Up

-- Which PostgreSQL cluster the transaction ids of events belong to. A logical
-- dump that is restored elsewhere brings the identifier of where it was made;
-- the migration then moves the log before that cluster's own ids.
CREATE TABLE cluster (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    system_identifier bigint  NOT NULL
);

-- +goose Down
DROP TABLE cluster;
