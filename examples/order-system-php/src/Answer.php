<?php

declare(strict_types=1);

namespace Terbayar;

/** What follows from a try to send a payment. */
final class Answer
{
    /** It will be sent to the gateway. */
    public const ACCEPTED = 'accepted';
    /** Nothing was done, and sending the same again does not help: manual work. */
    public const REFUSED = 'refused';
    /** It may or may not be recorded: send the same text again, under the same id. */
    public const RETRY = 'retry';

    /**
     * @param array<string, mixed> $payment of an accepted payment: status, qr_code, ...
     * @param int|null             $after   seconds until the next try; null: your own backoff
     */
    public function __construct(
        public readonly string $next,
        public readonly string $detail = '',
        public readonly array $payment = [],
        public readonly ?int $after = null,
    ) {
    }
}
