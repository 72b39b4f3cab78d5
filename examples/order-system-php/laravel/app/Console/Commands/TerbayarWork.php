<?php

declare(strict_types=1);

namespace App\Console\Commands;

use Illuminate\Console\Command;
use Illuminate\Support\Facades\Log;
use Terbayar\Answer;
use Terbayar\Client;
use Terbayar\Orders;

/**
 * Sends what is not sent yet, and does what paid orders need. In routes/console.php:
 *
 *     Schedule::command('terbayar:work')->everyTenSeconds()->withoutOverlapping();
 *
 * The table of the orders is the queue: a job that a crash loses loses no payment.
 */
final class TerbayarWork extends Command
{
    protected $signature = 'terbayar:work';

    protected $description = 'Sends payments to Terbayar, and delivers what is paid';

    public function handle(Orders $orders, Client $client): int
    {
        foreach ($orders->unsent() as $id) {
            $answer = $orders->send($client, $id, 0);
            if ($answer->next !== Answer::ACCEPTED) {
                Log::warning("order {$id}: {$answer->next}: {$answer->detail}");
            }
        }
        $orders->work(function (string $todo, string $id, int $total): void {
            Log::info("{$todo} {$id} {$total}"); // dispatch your job here
        });

        return self::SUCCESS;
    }
}
