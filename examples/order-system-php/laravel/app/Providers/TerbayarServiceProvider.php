<?php

declare(strict_types=1);

namespace App\Providers;

use Illuminate\Support\Facades\DB;
use Illuminate\Support\ServiceProvider;
use Terbayar\Client;
use Terbayar\Orders;
use Terbayar\Webhook;

/** In bootstrap/providers.php (before Laravel 11: config/app.php). */
final class TerbayarServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->app->bind(Client::class, fn (): Client => new Client(config('terbayar.url'), config('terbayar.key')));
        $this->app->bind(Webhook::class, fn (): Webhook => new Webhook(config('terbayar.webhook_secret')));
        $this->app->bind(Orders::class, fn (): Orders => new Orders(DB::connection()->getPdo()));
    }
}
