// Reads Terbayar's result events from Redis with a consumer group, and acts on each change of
// a payment once. docs/consuming.md explains every step.
//
// Start several to share the work: when one dies, the others take over what it was given.

import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient, createCluster, createSentinel } from 'redis';
import { process as processEvent } from './process.js';
import { Store } from './store.js';

const env = (name, otherwise) => process.env[name] || otherwise;

const partitions = Number(env('LEDGER_PARTITIONS', '1'));
const claimAfter = Number(env('CLAIM_AFTER', '60')) * 1000;
if (!Number.isInteger(partitions) || partitions < 1 || !Number.isInteger(claimAfter)) {
  console.error('LEDGER_PARTITIONS must be 1 or more, CLAIM_AFTER a number of seconds');
  process.exit(2);
}
const group = env('GROUP', 'orders');
const consumer = env('CONSUMER', hostname());
const COUNT = 100; // events per read
const BLOCK = 2000; // ms: how long a read waits for events; SIGTERM waits as long
// How often an event is tried before it is parked.
const MAX_DELIVERIES = 5;
// How far before its position a lost group is created again, in ms: the clocks of two Redis
// servers differ, and so may the ids of entries before and after a failover.
const REWIND = 3600_000;

// connect returns a connected client. It reconnects for ever. A client sends its commands to a
// node on one connection, in order: so every reader that blocks has its own client.
async function connect() {
  const addresses = env('REDIS_ADDRS', '127.0.0.1:6379').split(','); // of Sentinels, if there is REDIS_MASTER
  const options = {
    username: process.env.REDIS_USERNAME,
    password: process.env.REDIS_PASSWORD,
    disableOfflineQueue: true, // while Redis is down a command fails, and the reader tries again
    socket: {
      socketTimeout: BLOCK + 10_000, // a server that no longer answers
      reconnectStrategy: (retries) => Math.min(100 * 2 ** retries, 2000),
    },
  };
  let client;
  if (process.env.REDIS_MASTER) {
    client = createSentinel({
      name: process.env.REDIS_MASTER,
      sentinelRootNodes: addresses.map((a) => ({ host: a.slice(0, a.lastIndexOf(':')), port: Number(a.slice(a.lastIndexOf(':') + 1)) })),
      nodeClientOptions: options,
      scanInterval: 1000, // ms until it notices a failover
      passthroughClientErrorEvents: true,
    });
  } else if (process.env.REDIS_CLUSTER) {
    client = createCluster({ rootNodes: addresses.map((a) => ({ url: `redis://${a}` })), defaults: options });
  } else {
    client = createClient({ url: `redis://${addresses[0]}`, ...options });
  }
  client.on('error', (err) => console.error(`redis: ${err.error?.message ?? err.message ?? err.type}`)); // without it, an error ends the process
  for (;;) {
    try {
      return await client.connect();
    } catch (err) {
      console.error(`redis: ${err.message}, will retry`);
      await sleep(1000);
    }
  }
}

// streamNames returns the streams of all partitions. In a name that contains the hash tag
// {terbayar:events}, the tag has the number of the partition.
function streamNames(name) {
  const tag = '{terbayar:events}';
  return Array.from({ length: partitions }, (_, i) => {
    if (i === 0) return name;
    return name.includes(tag) ? name.replace(tag, `{terbayar:events:${i}}`) : `${name}:${i}`;
  });
}

// Reader reads the events of one stream. Each stream has its own, because the streams of a
// Cluster are on several nodes, and one read has one node.
class Reader {
  #cursor = '0-0'; // of XAUTOCLAIM
  #position; // that is stored

  constructor(stream, blocking, redis, store) {
    Object.assign(this, { stream, blocking, redis, store });
  }

  // run reads until the signal. It finishes the batch that it has been given.
  async run(signal) {
    while (!signal.aborted) {
      try {
        await this.round();
      } catch (err) {
        try {
          if (!err.message?.startsWith('NOGROUP')) throw err;
          await this.createGroup(); // the first start, or Redis has lost the group
        } catch (err) {
          console.error(`${this.stream}: ${err.message}, will retry`);
          await sleep(1000, undefined, { signal }).catch(() => {});
        }
      }
    }
  }

  // createGroup creates the group at the position up to which everything has been processed,
  // less the rewind. Events that come again have been processed already, see Store.once. It
  // never creates a lost group at "$": that would skip what was written meanwhile.
  async createGroup() {
    const position = await this.store.position(this.stream);
    const start = position ? String(Math.max(0, Number(position.split('-')[0]) - REWIND)) : env('START', '0');
    try {
      await this.redis.xGroupCreate(this.stream, group, start, { MKSTREAM: true });
      console.error(`${this.stream}: group ${group} created at ${start}`);
    } catch (err) {
      if (!err.message.startsWith('BUSYGROUP')) throw err; // BUSYGROUP: another consumer was faster
    }
  }

  // round takes over events of consumers that died, reads new events, and stores the position.
  async round() {
    const claimed = await this.redis.xAutoClaim(this.stream, group, consumer, claimAfter, this.#cursor, { COUNT });
    this.#cursor = claimed.nextId;
    for (const m of claimed.messages) {
      if (m) await this.again(m); // null: deleted from the stream (Redis 6.2)
    }
    const wait = claimed.messages.length > 0 ? {} : { BLOCK }; // there may be more of them
    const streams = await this.blocking.xReadGroup(group, consumer, { key: this.stream, id: '>' }, { COUNT, ...wait });
    for (const { messages } of streams ?? []) {
      for (const m of messages) await this.handle(m);
    }
    await this.storePosition();
  }

  // again handles an event that was delivered before. After too many deliveries it is parked:
  // one event that fails, or kills the consumer, must not stop the others.
  async again({ id, message }) {
    const [pending] = await this.redis.xPendingRange(this.stream, group, id, id, 1);
    if (!pending || pending.deliveriesCounter <= MAX_DELIVERIES) return this.handle({ id, message });
    console.error(`${this.stream}: event ${id} was delivered ${pending.deliveriesCounter} times and is parked: needs a person`);
    await this.store.park(this.stream, id, message.event ?? '');
    await this.redis.xAck(this.stream, group, id);
  }

  // handle processes an event, and acknowledges it when its effect is durable. An event that
  // fails stays pending: XAUTOCLAIM delivers it again after CLAIM_AFTER.
  async handle({ id, message }) {
    try {
      await processEvent(this.store, message.event);
    } catch (err) {
      console.error(`${this.stream}: event ${id}: ${err.message}, will retry`);
      return;
    }
    await this.redis.xAck(this.stream, group, id);
  }

  // storePosition stores up to where everything is processed: up to the oldest event that is
  // pending, for any consumer, or else the last one that was delivered. The id of the event
  // that was processed last is no such position: another consumer may still have an older one.
  async storePosition() {
    const [groups, pending] = await this.redis.multi().xInfoGroups(this.stream).xPending(this.stream, group).exec();
    const position = pending.pending > 0 ? pending.firstId : groups.find((g) => g.name === group)['last-delivered-id'];
    if (position === this.#position) return;
    await this.store.setPosition(this.stream, position);
    this.#position = position;
  }
}

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    stop.abort();
    // Redis does not answer. What is not acknowledged is delivered again.
    setTimeout(() => process.exit(1), BLOCK + 20_000).unref();
  });
}

const store = await Store.open(env('STATE_DIR', 'state'));
const shared = await connect();
const readers = await Promise.all(streamNames(env('EVENTS_STREAM', 'terbayar:events')).map(async (stream) => new Reader(stream, await connect(), shared, store)));
await Promise.all(readers.map((r) => r.run(stop.signal)));
process.exit(0); // every answer is in, so the connections may break
