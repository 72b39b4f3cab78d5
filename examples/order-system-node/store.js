import { closeSync, existsSync, fdatasyncSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';

// Store stands for your database. It is a journal: a file with one JSON object a line, each an
// order as it is now and, if an event caused the change, the event's key. A line is one write and
// one fsync, so both are stored or neither, as in a transaction. One process uses it.
//
// In SQL it is two tables: orders, and processed_events with a unique key.
export class Store {
  #orders = new Map();
  #keys = new Set();
  #file;

  constructor(dir) {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const path = join(dir, 'orders.ndjson');
    if (existsSync(path)) {
      const lines = readFileSync(path, 'utf8').split('\n');
      lines.pop(); // empty, or a line that a crash cut off: what it stores was never acknowledged
      for (const line of lines) this.#apply(JSON.parse(line));
    }
    // Write it again without the changes that are superseded, and with them the bodies, which
    // contain the customer's data.
    const temporary = `${path}.new`;
    this.#file = openSync(temporary, 'w', 0o600);
    for (const order of this.#orders.values()) this.#write({ order });
    for (const key of this.#keys) this.#write({ key });
    fsyncSync(this.#file);
    renameSync(temporary, path);
    const directory = openSync(dir, 'r');
    fsyncSync(directory); // makes the new name durable
    closeSync(directory);
  }

  get(id) {
    return this.#orders.get(id);
  }

  all() {
    return [...this.#orders.values()];
  }

  has(key) {
    return this.#keys.has(key);
  }

  // save stores an order and, if there is one, the key of the event that changed it. When it
  // returns, both survive a crash.
  save(order, key) {
    try {
      this.#write({ order, key });
      fdatasyncSync(this.#file);
    } catch (err) {
      // What the file contains is not known now. The next start reads it.
      console.error(`store: ${err.message}`);
      process.exit(1);
    }
    this.#apply({ order, key });
  }

  #write(record) {
    const line = Buffer.from(`${JSON.stringify(record)}\n`);
    for (let n = 0; n < line.length; ) n += writeSync(this.#file, line, n);
  }

  #apply({ order, key }) {
    if (order) this.#orders.set(order.id, order);
    if (key) this.#keys.add(key);
  }
}
