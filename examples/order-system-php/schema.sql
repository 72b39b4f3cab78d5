-- For SQLite. laravel/database/migrations has the same for Laravel.
CREATE TABLE IF NOT EXISTS orders (
    id         VARCHAR(64) PRIMARY KEY,              -- the transaction id, permanently
    gateway    VARCHAR(16) NOT NULL,
    total      BIGINT NOT NULL,                      -- whole rupiah
    payment    TEXT,                                 -- what is sent; deleted when it is accepted
    sent       VARCHAR(8) NOT NULL DEFAULT 'no',     -- no, yes, refused
    send_at    BIGINT NOT NULL DEFAULT 0,            -- when it is sent again, Unix time
    tries      INTEGER NOT NULL DEFAULT 0,
    detail     TEXT,                                 -- why it is not sent
    status     VARCHAR(16) NOT NULL DEFAULT 'new',   -- of the payment
    event_n    INTEGER NOT NULL DEFAULT 0,           -- of the event that set the status
    event_time BIGINT NOT NULL DEFAULT 0,            -- its time, in microseconds
    pay        TEXT,                                 -- JSON: what the customer needs in order to pay
    todo       VARCHAR(8)                            -- deliver, review
);
CREATE INDEX IF NOT EXISTS orders_unsent ON orders (sent, send_at);
CREATE INDEX IF NOT EXISTS orders_todo ON orders (todo);

CREATE TABLE IF NOT EXISTS processed_events (
    event_key CHAR(64) PRIMARY KEY,
    order_id  VARCHAR(255) NOT NULL,
    status    VARCHAR(16) NOT NULL,
    n         INTEGER NOT NULL,
    changed   INTEGER NOT NULL DEFAULT 0             -- 1: it has changed the order
);
CREATE INDEX IF NOT EXISTS processed_events_order ON processed_events (order_id);
