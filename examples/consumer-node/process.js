// process acts on an event once, however often it is delivered. Replace what it prints by what
// an order needs; do that in the transaction that stores the key.
export async function process(store, text) {
  const event = JSON.parse(text);
  const { id, source, type, subject, data } = event;
  if (!id || !source || !type || !subject) throw new Error('not a result event');
  if (await store.once(key(event), text)) console.log(source, subject, type, data?.amount);
}

// key identifies what an event may cause once. After a Redis failover the same change may come
// under another id, so the key is not the id, except for the statuses that a payment may enter
// more than once.
function key({ id, source, type, subject }) {
  if (type === 'terbayar.payment.on_processing' || type === 'terbayar.payment.needs_review') return id;
  return `${source} ${subject} ${type}`;
}
