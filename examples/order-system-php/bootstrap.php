<?php

declare(strict_types=1);

// What Laravel does in the real application: load classes, read settings, open the database.

spl_autoload_register(function (string $class): void {
    if (str_starts_with($class, 'Terbayar\\')) {
        require __DIR__ . '/src/' . substr($class, strlen('Terbayar\\')) . '.php';
    }
});

function orders(): Terbayar\Orders
{
    $db = new PDO('sqlite:' . (getenv('DATABASE') ?: __DIR__ . '/orders.sqlite'), options: [PDO::ATTR_TIMEOUT => 10]);
    $db->exec(file_get_contents(__DIR__ . '/schema.sql'));

    return new Terbayar\Orders($db);
}

function client(): Terbayar\Client
{
    return new Terbayar\Client(getenv('TERBAYAR_URL') ?: 'http://127.0.0.1:8081', (string) getenv('TERBAYAR_KEY'));
}
