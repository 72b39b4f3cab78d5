<?php

return [
    'url' => env('TERBAYAR_URL', 'http://127.0.0.1:8081'),
    'key' => env('TERBAYAR_KEY', ''),
    'webhook_secret' => env('WEBHOOK_SECRET', ''),
];
