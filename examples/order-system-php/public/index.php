<?php

declare(strict_types=1);

// The same as laravel/, without Laravel: php -S 127.0.0.1:3001 public/index.php

use Terbayar\Orders;
use Terbayar\Payment;
use Terbayar\Webhook;
use Terbayar\WrongSignature;

require __DIR__ . '/../bootstrap.php';

const CHECKOUT_WAIT = 8; // seconds that a customer at the checkout waits for the QR code

/** @return array{int, ?array} the status and the body of the answer */
function route(string $method, string $path, string $body): array
{
    if ($method === 'GET' && str_starts_with($path, '/orders/')) {
        $order = orders()->find(rawurldecode(substr($path, strlen('/orders/'))));

        return $order === null ? [404, ['error' => 'no such order']] : [200, $order];
    }
    if ($method === 'POST' && $path === '/orders') {
        try {
            $id = Orders::newId();
            // A real shop takes the prices from its database, never from the browser.
            $input = json_decode($body, true, flags: JSON_THROW_ON_ERROR);
            $payment = ($input['gateway'] ?? '') === 'paydia'
                ? Payment::paydia($id, $input['title'], $input['customer_token'], $input['total'])
                : Payment::am($id, $input['title'], $input['customer']['name'], $input['customer']['number'], $input['items'], $input['fee']);
        } catch (Throwable) {
            return [400, ['error' => 'not an order']];
        }
        $orders = orders();
        $orders->create($id, $payment);
        $answer = $orders->send(client(), $id, CHECKOUT_WAIT);
        if ($answer->detail !== '') {
            error_log("order {$id}: {$answer->next}: {$answer->detail}");
        }

        return [201, $orders->find($id)];
    }
    if ($method === 'POST' && $path === '/webhooks/terbayar') {
        $webhook = new Webhook((string) getenv('WEBHOOK_SECRET'));
        $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
        try {
            $event = $webhook->event($body, $id, $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '');
        } catch (WrongSignature $e) {
            error_log($e->getMessage());

            return [401, ['error' => 'wrong signature']];
        }
        orders()->receive($event, $id);

        return [204, null];
    }

    return [404, ['error' => 'no such page']];
}

try {
    [$status, $answer] = route($_SERVER['REQUEST_METHOD'], strtok($_SERVER['REQUEST_URI'], '?'), file_get_contents('php://input'));
} catch (Throwable $e) {
    error_log((string) $e);
    [$status, $answer] = [500, ['error' => 'see the log']]; // Terbayar delivers the event again
}
http_response_code($status);
if ($answer !== null) {
    header('Content-Type: application/json');
    echo json_encode($answer, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
}
