<?php

declare(strict_types=1);

// Sends what is not sent yet, and does what paid orders need. In Laravel the scheduler does it.

require __DIR__ . '/../bootstrap.php';

$orders = orders();
$client = client();
for (;;) {
    foreach ($orders->unsent() as $id) {
        $answer = $orders->send($client, $id, 0);
        if ($answer->detail !== '') {
            error_log("order {$id}: {$answer->next}: {$answer->detail}");
        }
    }
    $orders->work(function (string $todo, string $id, int $total): void {
        echo "{$todo} {$id} {$total}\n";
    });
    usleep(500_000);
}
