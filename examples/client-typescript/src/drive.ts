// Drives a Terbayar server with the generated client: payments, duplicates, conflicts, invalid
// payments, waits, reads, events, lists and cancels. It needs a server whose gateways are simulated:
//
//   TERBAYAR_URL=http://127.0.0.1:8081 TERBAYAR_KEY=tbr_... npm test

import assert from 'node:assert/strict';
import { am, client, paydia, run, step, submit } from './client.js';

const invoice = `TS-${run}/1`; // a slash: read by query, not by path
const order = `TS-${run}-2`;

await step('a payment is accepted; with wait the answer has what the customer needs', async () => {
  const { data, error, response } = await submit(am(invoice, 13000), '20s');
  assert.equal(response.status, 202, JSON.stringify(error));
  assert.equal(data?.result, 'enqueued');
  assert.equal(data.transaction_id, invoice);
  assert.ok(data.qr_code ?? data.payment_links ?? data.payment_code, JSON.stringify(data));
});

await step('the same payment is a duplicate', async () => {
  const { data, response } = await submit(am(invoice, 13000));
  assert.equal(response.status, 200);
  assert.equal(data?.result, 'duplicate');
  assert.notEqual(data.status, 'queued');
});

await step('the same id with another amount is a conflict', async () => {
  const { error, response } = await submit(am(invoice, 14000));
  assert.equal(response.status, 409);
  assert.equal(error?.result, 'conflict');
  assert.ok(error.payment_status);
});

await step('an invalid payment is answered with every wrong field', async () => {
  const wrong = paydia(`TS-${run}-wrong`);
  Object.assign(wrong.payment, { amount: { value: '10000', currency: 'USD' }, title: '' });
  const { error, response } = await submit(wrong);
  assert.equal(response.status, 422);
  assert.equal(error?.result, 'invalid');
  assert.deepEqual(error.errors?.map((e) => e.field).sort(), ['payment.amount.currency', 'payment.amount.value', 'payment.title']);
});

await step('waiting for a change until the payment is paid', async () => {
  const known = await submit(paydia(order), '20s');
  assert.equal(known.response.status, 202);
  for (const [gateway, id] of [['paydia', order], ['amdigipay', invoice]] as const) {
    let etag: string | undefined;
    for (const deadline = Date.now() + 60_000; ; ) {
      const { data, error, response } = await client.GET('/v1/payments', {
        params: { query: { gateway, id, wait: etag ? '10s' : undefined }, header: { 'If-None-Match': etag } },
      });
      if (data && 'status' in data && data.status === 'paid') break;
      assert.ok(response.status === 200 || response.status === 304, JSON.stringify(error));
      assert.ok(Date.now() < deadline, `${id} is not paid`);
      etag = response.headers.get('etag') ?? etag;
    }
  }
  const { data } = await client.GET('/v1/payments/{gateway}/{id}', { params: { path: { gateway: 'paydia', id: order } } });
  assert.equal(data?.amount, 10000);
  assert.equal(data.attempts?.[0]?.kind, 'submit');
});

await step('an unknown payment is 404', async () => {
  const { error, response } = await client.GET('/v1/payments/{gateway}/{id}', { params: { path: { gateway: 'paydia', id: `TS-${run}-none` } } });
  assert.equal(response.status, 404);
  assert.equal(error?.status, 404);
});

await step('the events of both payments, page by page', async () => {
  const types: Record<string, string[]> = { [invoice]: [], [order]: [] };
  for (let after: string | undefined; ; ) {
    const { data, error } = await client.GET('/v1/events', { params: { query: { after, limit: 2 } } });
    assert.ok(typeof data === 'object', JSON.stringify(error)); // a string: server-sent events
    for (const event of data.events) types[event.subject]?.push(event.type);
    if (data.next === after) break;
    after = data.next;
  }
  assert.equal(types[invoice]?.at(-1), 'terbayar.payment.paid');
  assert.equal(types[order]?.at(-1), 'terbayar.payment.paid');
});

await step('the list of paid payments, page by page', async () => {
  const found: string[] = [];
  for (let after: string | undefined; ; ) {
    const { data, error } = await client.GET('/v1/payments', { params: { query: { status: 'paid', since: '10m', limit: 1, after } } });
    assert.ok(data && 'payments' in data, JSON.stringify(error)); // without id the answer is a list
    for (const payment of data.payments) {
      assert.equal(payment.status, 'paid');
      found.push(payment.transaction_id);
    }
    if (!data.next) break;
    after = data.next;
  }
  for (const id of [invoice, order]) assert.equal(found.filter((f) => f === id).length, 1, `${id} in ${found}`);
});

await step('a wrong parameter of the list is named', async () => {
  const { error, response } = await client.GET('/v1/payments', { params: { query: { limit: 100_000 } } });
  assert.equal(response.status, 400);
  assert.deepEqual(error?.errors?.map((e) => e.field), ['limit']);
});

await step('a payment that was sent cannot be cancelled', async () => {
  const { error, response } = await client.DELETE('/v1/payments/{gateway}/{id}', { params: { path: { gateway: 'paydia', id: order } } });
  assert.equal(response.status, 409);
  assert.equal(error?.payment?.status, 'paid');
});
