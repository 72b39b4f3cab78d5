<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Log;
use Terbayar\Answer;
use Terbayar\Client;
use Terbayar\Orders;
use Terbayar\Payment;

final class OrderController
{
    /** How long a customer at the checkout waits for the QR code, in seconds. */
    private const CHECKOUT_WAIT = 8;

    public function __construct(private readonly Orders $orders, private readonly Client $client)
    {
    }

    public function store(Request $request): JsonResponse
    {
        $input = $request->validate([
            'title' => 'required|string|max:255',
            'customer.name' => 'required|string|max:255',
            'customer.number' => 'required|string|max:255',
            'items' => 'required|array|min:1|max:999',
            'items.*.id' => 'required|string|max:255',
            'items.*.name' => 'required|string|max:255',
            'items.*.price' => 'required|integer|min:0', // in a real shop from your database, never from the browser
            'items.*.quantity' => 'required|integer|min:1',
            'fee' => 'required|integer|min:0',
        ]);
        $id = Orders::newId();
        // "integer" also accepts the text "5000", as forms send it.
        $items = array_map(fn (array $item): array => ['price' => (int) $item['price'], 'quantity' => (int) $item['quantity']] + $item, array_values($input['items']));
        $payment = Payment::am($id, $input['title'], $input['customer']['name'], $input['customer']['number'], $items, (int) $input['fee']);

        $this->orders->create($id, $payment); // durable before it is sent; not inside DB::transaction
        $answer = $this->orders->send($this->client, $id, self::CHECKOUT_WAIT);
        if ($answer->next !== Answer::ACCEPTED) {
            Log::warning("order {$id}: {$answer->next}: {$answer->detail}"); // the scheduler sends it again
        }

        return response()->json($this->orders->find($id), 201);
    }

    /** For the page that waits for the payment. */
    public function show(string $id): JsonResponse
    {
        $order = $this->orders->find($id);

        return $order === null ? response()->json(['error' => 'no such order'], 404) : response()->json($order);
    }
}
