// A small order system. It stores an order, sends its payment to Terbayar until that is accepted,
// and receives the results as webhooks. docs/order-systems.md explains every step.
//
//   POST /orders             creates an order; the answer has what the customer needs to pay
//   GET  /orders/ID          the order, for a page that waits for the payment
//   POST /webhooks/terbayar  receives result events

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { Webhook } from 'standardwebhooks';
import { receive, work } from './events.js';
import { newPayment } from './payment.js';
import { Store } from './store.js';
import { submit } from './terbayar.js';

const MAX_BODY = 1 << 20; // bytes
const CHECKOUT_WAIT = 8; // seconds that a customer at the checkout waits for the QR code

if (!process.env.WEBHOOK_SECRET) {
  console.error('set WEBHOOK_SECRET to that of the worker');
  process.exit(2);
}
const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const store = new Store(process.env.STATE_DIR || 'state');

// sending has the orders that are being sent: an order is sent by one call at a time.
const sending = new Map();

// send sends an order's payment once. Whatever happens, the order keeps its id and its text.
function send(id, wait) {
  if (!sending.has(id)) sending.set(id, sendNow(id, wait).finally(() => sending.delete(id)));
  return sending.get(id);
}

async function sendNow(id, wait) {
  const { text } = store.get(id);
  const { next, answer, after, detail } = await submit(id, text, wait);
  const order = store.get(id); // a webhook may have changed it meanwhile
  if (next === 'accepted') {
    // The text is no longer needed, and has the customer's data. The status comes by webhook.
    const pay = Object.fromEntries(['payment_links', 'payment_code', 'qr_code'].filter((name) => answer[name]).map((name) => [name, answer[name]]));
    store.save({ ...order, sent: 'yes', text: undefined, ...pay });
  } else if (next === 'refused') {
    console.error(`order ${id} is refused: ${detail}`);
    store.save({ ...order, sent: 'refused', detail });
  } else {
    const tries = (retries.get(id)?.tries ?? 0) + 1;
    const pause = (after ?? Math.min(2 ** tries / 2, 60)) * (1 + Math.random() / 4);
    retries.set(id, { tries, at: Date.now() + pause * 1000 });
    console.error(`order ${id} will be sent again in ${pause.toFixed(1)} s: ${detail}`);
    return;
  }
  retries.delete(id);
}

// retries has when an order is sent again. It need not survive a restart: what is unsent is in
// the store.
const retries = new Map();

function sendUnsent() {
  for (const order of store.all()) {
    if (sending.size >= 20) return; // requests at the same time
    if (order.sent === 'no' && !(retries.get(order.id)?.at > Date.now())) void send(order.id, 0);
  }
}

// createOrder stores the order with its payment, and only then sends it. A real shop takes the
// prices from its database, never from the browser.
async function createOrder(input) {
  const id = `INV-${randomUUID()}`;
  let payment;
  try {
    payment = newPayment(id, input);
  } catch {
    return [400, { error: 'not an order' }];
  }
  const { gateway } = input;
  store.save({ id, gateway, total: payment.total, text: payment.text, sent: 'no', status: 'new', history: [] });
  await send(id, CHECKOUT_WAIT);
  return [201, view(store.get(id))];
}

// view is what the customer's browser may see of an order.
function view({ id, total, sent, status, history, payment_links, payment_code, qr_code }) {
  return { id, total, sent, status, history, payment_links, payment_code, qr_code };
}

async function receiveWebhook(raw, headers) {
  let event;
  try {
    event = webhook.verify(raw.toString(), headers); // the signature covers the bytes as they came
  } catch (err) {
    console.error(`webhook refused: ${err.message}`);
    return [401, { error: 'wrong signature' }];
  }
  receive(store, event, headers['webhook-id']); // durable when it returns
  setImmediate(work, store);
  return [204];
}

async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    if ((size += chunk.length) > MAX_BODY) throw new Error('body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function route(request) {
  const { method, url, headers } = request;
  if (method === 'GET' && url.startsWith('/orders/')) {
    const order = store.get(decodeURIComponent(url.slice('/orders/'.length)));
    return order ? [200, view(order)] : [404, { error: 'no such order' }];
  }
  if (method !== 'POST') return [404, { error: 'no such page' }];
  const raw = await readBody(request);
  if (url === '/webhooks/terbayar') return receiveWebhook(raw, headers);
  if (url !== '/orders') return [404, { error: 'no such page' }];
  let input;
  try {
    input = JSON.parse(raw);
  } catch {
    return [400, { error: 'not JSON' }];
  }
  return createOrder(input);
}

const server = createServer(async (request, response) => {
  let status, body;
  try {
    [status, body] = await route(request);
  } catch (err) {
    console.error(`${request.method} ${request.url}: ${err.message}`);
    [status, body] = [500, { error: 'see the log' }]; // Terbayar delivers the event again
  }
  response.writeHead(status, body && { 'Content-Type': 'application/json' });
  response.end(body && JSON.stringify(body));
});
server.listen(Number(process.env.PORT || 3000), process.env.HOST || '127.0.0.1', () => {
  console.error(`order system at http://127.0.0.1:${server.address().port}`);
});
work(store);
sendUnsent();
setInterval(sendUnsent, 500);
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
}
