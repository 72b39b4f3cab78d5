<?php

declare(strict_types=1);

namespace Terbayar;

use DateTimeImmutable;
use PDO;
use PDOException;
use UnexpectedValueException;

/**
 * The orders and their payments, in any database that PDO knows. Every step is one statement or one
 * transaction, so two processes may do the same at the same time.
 */
final class Orders
{
    /** The statuses that no other event replaces. "expired" is not one: the customer may pay late. */
    private const FINAL = "'paid', 'rejected', 'failed', 'cancelled', 'refunded'";

    /** A payment may enter these more than once. */
    private const REPEATABLE = ['terbayar.payment.on_processing', 'terbayar.payment.needs_review'];

    public function __construct(private readonly PDO $db)
    {
        $db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
    }

    public static function newId(): string
    {
        return 'INV-' . bin2hex(random_bytes(12));
    }

    /** Stores an order with its payment. Only then may it be sent. */
    public function create(string $id, Payment $payment): void
    {
        $this->run('INSERT INTO orders (id, gateway, total, payment) VALUES (?, ?, ?, ?)', [$id, $payment->gateway, $payment->total, $payment->text]);
    }

    /** @return array<string, mixed>|null what the customer's browser may see of an order */
    public function find(string $id): ?array
    {
        $order = $this->run('SELECT id, total, sent, status, pay FROM orders WHERE id = ?', [$id])->fetch(PDO::FETCH_ASSOC);
        if ($order === false) {
            return null;
        }
        $history = $this->run('SELECT status FROM processed_events WHERE order_id = ? AND changed = 1 ORDER BY n', [$id])->fetchAll(PDO::FETCH_COLUMN);
        $pay = json_decode($order['pay'] ?? '{}', true);
        unset($order['pay']);

        return ['id' => $order['id'], 'total' => (int) $order['total']] + $order + ['history' => $history] + $pay;
    }

    /** @return list<string> the ids of orders that are to be sent now */
    public function unsent(): array
    {
        return $this->run("SELECT id FROM orders WHERE sent = 'no' AND send_at <= ? ORDER BY send_at LIMIT 50", [time()])->fetchAll(PDO::FETCH_COLUMN);
    }

    /**
     * Sends an order's payment once. Whatever happens, the order keeps its id and its text. If two
     * processes send it, the second one is answered "duplicate".
     *
     * @param int $wait see Client::submit
     */
    public function send(Client $client, string $id, int $wait): Answer
    {
        $order = $this->run('SELECT payment, sent, tries FROM orders WHERE id = ?', [$id])->fetch(PDO::FETCH_ASSOC);
        if ($order === false || $order['sent'] !== 'no') {
            return new Answer(Answer::ACCEPTED);
        }
        $answer = $client->submit($id, $order['payment'], $wait);
        if ($answer->next === Answer::ACCEPTED) {
            // The text is no longer needed, and has the customer's data. The status comes by webhook.
            $this->run("UPDATE orders SET sent = 'yes', payment = NULL, pay = COALESCE(pay, ?) WHERE id = ?", [self::pay($answer->payment), $id]);
        } elseif ($answer->next === Answer::REFUSED) {
            $this->run("UPDATE orders SET sent = 'refused', detail = ? WHERE id = ? AND sent = 'no'", [$answer->detail, $id]);
        } else {
            $after = $answer->after ?? min(2 ** min($order['tries'], 6), 60);
            $this->run("UPDATE orders SET send_at = ?, tries = tries + 1, detail = ? WHERE id = ? AND sent = 'no'", [time() + $after + random_int(0, 1), $answer->detail, $id]);
        }

        return $answer;
    }

    /**
     * Changes the order that an event is about, once, however often the event is delivered.
     *
     * @param array<string, mixed> $event
     */
    public function receive(array $event, string $webhookId): void
    {
        foreach (['id', 'source', 'type', 'subject', 'time'] as $name) {
            if (!is_string($event[$name] ?? null)) {
                throw new UnexpectedValueException('not a result event');
            }
        }
        // After a failover of Redis the same change may come with another webhook-id, so the key
        // is the payment and the type, except where a type may repeat.
        $key = in_array($event['type'], self::REPEATABLE, true) ? $webhookId : "{$event['source']} {$event['subject']} {$event['type']}";
        $status = substr($event['type'], strlen('terbayar.payment.'));
        $n = (int) array_slice(explode(':', $event['id']), -2, 1)[0]; // GATEWAY:TRANSACTION:n:STATUS
        $time = (int) (new DateTimeImmutable($event['time']))->format('Uu'); // microseconds

        $this->db->beginTransaction();
        try {
            // The key first: it is unique, so one of two processes with the same event waits here,
            // and fails.
            $this->run('INSERT INTO processed_events (event_key, order_id, status, n) VALUES (?, ?, ?, ?)', [hash('sha256', $key), $event['subject'], $status, $n]);
            $order = $this->run('SELECT total, gateway FROM orders WHERE id = ?', [$event['subject']])->fetch(PDO::FETCH_ASSOC);
            if ($order !== false && $event['source'] === 'terbayar/' . $order['gateway']) { // else it is of another order system
                $todo = null;
                if ($status === 'paid') { // never deliver for another amount
                    $todo = ($event['data']['amount'] ?? null) === (int) $order['total'] ? 'deliver' : 'review';
                }
                // An event that was replayed, or tried again for hours, may be older than the order's status.
                $changed = $this->run(
                    'UPDATE orders SET status = ?, event_n = ?, event_time = ?, todo = COALESCE(?, todo), pay = COALESCE(?, pay) WHERE id = ?
                     AND status NOT IN (' . self::FINAL . ') AND (event_n < ? OR (event_n = ? AND event_time < ?))',
                    [$status, $n, $time, $todo, self::pay($event['data'] ?? []), $event['subject'], $n, $n, $time],
                )->rowCount();
                $this->run('UPDATE processed_events SET changed = ? WHERE event_key = ?', [$changed, hash('sha256', $key)]);
            }
            $this->db->commit();
        } catch (PDOException $e) {
            $this->db->rollBack();
            if (!str_starts_with((string) $e->getCode(), '23')) { // 23xxx: the key exists, the event was processed
                throw $e; // the webhook is answered 500 and comes again
            }
        }
    }

    /**
     * Does what stored events have made necessary: slow work, which the webhook does not wait for. A crash
     * between the two steps repeats it, so real work has a key of its own, such as the order's id at
     * the carrier.
     *
     * @param callable(string $todo, string $id, int $total): void $do
     */
    public function work(callable $do): void
    {
        foreach ($this->run('SELECT id, todo, total FROM orders WHERE todo IS NOT NULL LIMIT 50')->fetchAll(PDO::FETCH_ASSOC) as $order) {
            $do($order['todo'], $order['id'], (int) $order['total']);
            $this->run('UPDATE orders SET todo = NULL WHERE id = ? AND todo = ?', [$order['id'], $order['todo']]);
        }
    }

    /** @param array<string, mixed> $data */
    private static function pay(array $data): ?string
    {
        $pay = array_intersect_key($data, ['payment_links' => 1, 'payment_code' => 1, 'qr_code' => 1]);

        return $pay === [] ? null : json_encode($pay, JSON_THROW_ON_ERROR);
    }

    private function run(string $sql, array $values = []): \PDOStatement
    {
        $statement = $this->db->prepare($sql);
        $statement->execute($values);

        return $statement;
    }
}
