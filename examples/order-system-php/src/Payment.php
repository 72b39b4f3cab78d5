<?php

declare(strict_types=1);

namespace Terbayar;

use DateTimeImmutable;
use DateTimeZone;
use InvalidArgumentException;

/**
 * The payment of an order, as JSON text. Amounts are whole rupiah: int, never float.
 *
 * The text is stored with the order and sent as it is on every try. If it were made again for a
 * retry, a new expired_date would make it another payment: "conflict".
 */
final class Payment
{
    private function __construct(
        public readonly string $gateway,
        public readonly int $total,
        public readonly string $text,
    ) {
    }

    /**
     * @param list<array{id: string, name: string, price: int, quantity: int}> $items
     */
    public static function am(string $id, string $title, string $customerName, string $customerNumber, array $items, int $fee): self
    {
        $goods = 0;
        $details = [];
        foreach ($items as $item) {
            $sum = $item['price'] * $item['quantity'];
            $goods += $sum;
            $details[] = [
                'item_id' => $item['id'],
                'item_name' => $item['name'],
                'item_price' => $item['price'],
                'item_quantity' => $item['quantity'],
                'item_total_price' => $sum,
            ];
        }
        if ($fee > 0) {
            $details[] = ['item_id' => 'fee', 'item_name' => 'fee', 'item_price' => $fee, 'item_quantity' => 1, 'item_total_price' => $fee];
        }
        // Until when the customer can pay: Jakarta time, whatever the server's time zone is.
        $expires = new DateTimeImmutable('+24 hours', new DateTimeZone('Asia/Jakarta'));

        return self::make('amdigipay', $goods + $fee, [
            'payment_id' => 33, // QRIS
            'expired_date' => $expires->format('Y-m-d H:i:s'),
            'nominal' => $goods,
            'admin_fee' => $fee,
            'transaction_id' => $id,
            'transaction_total' => $goods + $fee,
            'transaction_name' => $title,
            'transaction_desc' => '',
            'customer_number' => $customerNumber,
            'customer_name' => $customerName,
            'item_details' => $details,
        ]);
    }

    public static function paydia(string $id, string $title, string $customerToken, int $total): self
    {
        return self::make('paydia', $total, [
            'partnerReferenceNo' => $id,
            'amount' => ['value' => $total . '.00', 'currency' => 'IDR'],
            'title' => $title,
        ], ['customer_token' => $customerToken]);
    }

    private static function make(string $gateway, int $total, array $payment, array $more = []): self
    {
        if ($total <= 0) {
            throw new InvalidArgumentException('the total must be a positive amount');
        }
        // interactive: a customer waits at the checkout, so it is sent before what is normal.
        $text = json_encode(['gateway' => $gateway, 'priority' => 'interactive', 'payment' => $payment] + $more, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);

        return new self($gateway, $total, $text);
    }
}
