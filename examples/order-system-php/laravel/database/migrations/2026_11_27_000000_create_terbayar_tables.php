<?php

declare(strict_types=1);

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

return new class extends Migration
{
    // schema.sql says what each column is for.
    public function up(): void
    {
        Schema::create('orders', function (Blueprint $table): void {
            $table->string('id', 64)->primary();
            $table->string('gateway', 16);
            $table->bigInteger('total');
            $table->longText('payment')->nullable();
            $table->string('sent', 8)->default('no');
            $table->bigInteger('send_at')->default(0);
            $table->integer('tries')->default(0);
            $table->text('detail')->nullable();
            $table->string('status', 16)->default('new');
            $table->integer('event_n')->default(0);
            $table->bigInteger('event_time')->default(0);
            $table->text('pay')->nullable();
            $table->string('todo', 8)->nullable()->index();
            $table->index(['sent', 'send_at']);
        });
        Schema::create('processed_events', function (Blueprint $table): void {
            $table->char('event_key', 64)->primary();
            $table->string('order_id')->index();
            $table->string('status', 16);
            $table->integer('n');
            $table->integer('changed')->default(0);
        });
    }

    public function down(): void
    {
        Schema::dropIfExists('processed_events');
        Schema::dropIfExists('orders');
    }
};
