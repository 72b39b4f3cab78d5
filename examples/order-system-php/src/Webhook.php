<?php

declare(strict_types=1);

namespace Terbayar;

use InvalidArgumentException;

/** Verifies webhooks: https://www.standardwebhooks.com, signatures of version v1. */
final class Webhook
{
    private const TOLERANCE = 300; // seconds

    private readonly string $key;

    public function __construct(string $secret)
    {
        $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6), true) : false;
        if ($key === false || strlen($key) < 24) {
            throw new InvalidArgumentException('the webhook secret must be whsec_ and base64 of at least 24 bytes');
        }
        $this->key = $key;
    }

    /**
     * Returns the event of a webhook. The body is the raw one: decoded and encoded again it has
     * another signature.
     *
     * @return array<string, mixed>
     *
     * @throws WrongSignature
     */
    public function event(string $body, string $id, string $timestamp, string $signatures): array
    {
        if ($id === '' || !preg_match('/^\d{1,12}$/D', $timestamp) || abs(time() - (int) $timestamp) > self::TOLERANCE) {
            throw new WrongSignature('the webhook has no id, or is too old or too new');
        }
        $expected = base64_encode(hash_hmac('sha256', "{$id}.{$timestamp}.{$body}", $this->key, true));
        foreach (explode(' ', $signatures) as $signature) { // one for each secret of the sender
            [$version, $value] = explode(',', $signature, 2) + ['', ''];
            if ($version === 'v1' && hash_equals($expected, $value)) {
                return json_decode($body, true, flags: JSON_THROW_ON_ERROR);
            }
        }
        throw new WrongSignature('no signature of the webhook is right');
    }
}
