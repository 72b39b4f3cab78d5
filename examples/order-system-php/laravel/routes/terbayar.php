<?php

use App\Http\Controllers\OrderController;
use App\Http\Controllers\TerbayarWebhookController;
use Illuminate\Support\Facades\Route;

// In routes/api.php: require __DIR__ . '/terbayar.php'. The routes there have the prefix /api and no CSRF
// check, which a webhook cannot pass.
Route::post('/orders', [OrderController::class, 'store']);
Route::get('/orders/{id}', [OrderController::class, 'show']);
Route::post('/webhooks/terbayar', TerbayarWebhookController::class);
