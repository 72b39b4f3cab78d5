// The statuses that no other event replaces. "expired" is not one: the customer may pay late.
const FINAL = new Set(['paid', 'rejected', 'failed', 'cancelled', 'refunded']);

// A payment may enter these more than once.
const REPEATABLE = new Set(['terbayar.payment.on_processing', 'terbayar.payment.needs_review']);

// receive changes the order that an event is about, once, however often the event is delivered.
export function receive(store, event, webhookID) {
  const { id, source, type, subject, time, data } = event ?? {};
  if (![id, source, type, subject, time].every((s) => typeof s === 'string') || !data) throw new Error('not a result event');
  const order = store.get(subject);
  if (!order || source !== `terbayar/${order.gateway}`) {
    // Of another order system. It is acknowledged, because no retry changes this.
    console.error(`event ${id}: no such order`);
    return;
  }
  // After a failover of Redis the same change may come with another webhook-id, so the key is
  // the payment and the type, except where a type may repeat.
  const key = REPEATABLE.has(type) ? webhookID : `${source} ${subject} ${type}`;
  if (store.has(key)) return;
  const status = type.replace('terbayar.payment.', '');
  const n = Number(id.split(':').at(-2)); // GATEWAY:TRANSACTION:n:STATUS
  const last = order.event ?? { n: 0, time: '' };
  const changed = { ...order };
  // An event that was replayed, or tried again for hours, may be older than the order's status.
  const later = n > last.n || (n === last.n && Date.parse(time) > Date.parse(last.time));
  if (!FINAL.has(order.status) && later) {
    Object.assign(changed, { status, event: { n, time }, history: [...order.history, status] });
    for (const name of ['payment_links', 'payment_code', 'qr_code']) if (data[name]) changed[name] = data[name];
    if (status === 'paid' && data.amount === order.total) changed.todo = 'deliver';
    if (status === 'paid' && data.amount !== order.total) changed.todo = 'review'; // never deliver for another amount
  }
  store.save(changed, key);
}

// work does what stored events have made necessary: slow work, which the webhook does not wait
// for. A crash between the two steps repeats it, so real work has a key of its own, such as the
// order's id at the carrier.
export function work(store) {
  for (const order of store.all()) {
    if (!order.todo) continue;
    console.log(`${order.todo} ${order.id} ${order.total}`);
    store.save({ ...order, todo: undefined });
  }
}
