<?php

declare(strict_types=1);

namespace Terbayar;

/** Sends payments to Terbayar's HTTP API. */
final class Client
{
    public function __construct(private readonly string $url, private readonly string $key)
    {
    }

    /**
     * Sends a payment once.
     *
     * @param int $wait how long Terbayar may wait for what the customer needs in order to pay, in seconds
     */
    public function submit(string $id, string $text, int $wait): Answer
    {
        $headers = ['Content-Type: application/json', 'Expect:'];
        if ($this->key !== '') {
            $headers[] = 'Authorization: Bearer ' . $this->key;
        }
        $after = null;
        $curl = curl_init(rtrim($this->url, '/') . '/v1/payments' . ($wait > 0 ? "?wait={$wait}s" : ''));
        curl_setopt_array($curl, [
            CURLOPT_POST => true,
            CURLOPT_POSTFIELDS => $text,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_CONNECTTIMEOUT => 5,
            CURLOPT_TIMEOUT => $wait + 20, // longer than the wait
            CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$after): int {
                if (preg_match('/^retry-after:\s*(\d+)\s*$/i', $line, $m)) {
                    $after = (int) $m[1];
                }

                return strlen($line);
            },
        ]);
        $body = curl_exec($curl);
        if ($body === false) {
            // No answer, or not all of it. The payment may be recorded.
            return new Answer(Answer::RETRY, 'no answer: ' . curl_error($curl));
        }
        $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        // A proxy in between may answer with any status, so the answer must be Terbayar's own.
        $problem = curl_getinfo($curl, CURLINFO_CONTENT_TYPE) === 'application/problem+json';
        $answer = json_decode($body, true);
        $answer = is_array($answer) ? $answer : [];
        $detail = $status . ' ' . ($answer['detail'] ?? '');
        foreach ($answer['errors'] ?? [] as $error) {
            $detail .= " {$error['field']}: {$error['detail']}";
        }

        switch ($status) {
            case 200: // duplicate: an earlier try was recorded
            case 202: // enqueued
                if (($answer['transaction_id'] ?? null) === $id) {
                    return new Answer(Answer::ACCEPTED, payment: $answer);
                }
                break;
            case 400:
            case 409: // conflict: this id has other content
            case 413:
            case 415:
            case 422: // invalid: the detail has every wrong field
                if ($problem) {
                    return new Answer(Answer::REFUSED, $detail);
                }
                break;
            case 401: // the key is wrong or has ended: an operator corrects it, meanwhile the order waits
            case 403:
                return new Answer(Answer::RETRY, $detail, after: 60);
        }

        // 503, 500, 408, 429, and whatever a proxy answers.
        return new Answer(Answer::RETRY, $detail, after: $after);
    }
}
