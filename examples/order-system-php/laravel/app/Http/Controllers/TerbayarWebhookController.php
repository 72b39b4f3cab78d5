<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Support\Facades\Log;
use Terbayar\Orders;
use Terbayar\Webhook;
use Terbayar\WrongSignature;

final class TerbayarWebhookController
{
    public function __invoke(Request $request, Webhook $webhook, Orders $orders): Response
    {
        $id = (string) $request->header('webhook-id');
        try {
            // getContent is the raw body. $request->all() is not: it is trimmed, and has another signature.
            $event = $webhook->event($request->getContent(), $id, (string) $request->header('webhook-timestamp'), (string) $request->header('webhook-signature'));
        } catch (WrongSignature $e) {
            Log::warning($e->getMessage());

            return response('wrong signature', 401);
        }
        $orders->receive($event, $id); // an exception is answered 500, and the event comes again

        return response()->noContent();
    }
}
