import { createHash, randomUUID } from 'node:crypto';
import { link, mkdir, open, readFile, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const fileName = (...parts) => encodeURIComponent(parts.join(' '));

// Store stands for the database of the order system, which all consumers of the group share.
// Its files are rows: a file exists or not, like a row with a unique key.
export class Store {
  #dir;

  static async open(dir) {
    for (const sub of ['done', 'parked', 'tmp']) await mkdir(join(dir, sub), { recursive: true, mode: 0o700 });
    const store = new Store();
    store.#dir = dir;
    return store;
  }

  // once records that the event with this key has been processed, and returns whether that is
  // the first time. In SQL: INSERT INTO processed_events (key, event) ... ON CONFLICT DO NOTHING,
  // and the change of the order in the same transaction if a row was inserted.
  async once(key, event) {
    const temporary = await this.#write(event);
    try {
      await link(temporary, join(this.#dir, 'done', `${createHash('sha256').update(key).digest('hex')}.json`));
      await sync(join(this.#dir, 'done'));
      return true;
    } catch (err) {
      if (err.code !== 'EEXIST') throw err;
      return false;
    } finally {
      await unlink(temporary);
    }
  }

  // park keeps an event that cannot be processed, for a person.
  park(stream, id, event) {
    return this.#replace(join('parked', fileName(stream, id)), event);
  }

  // position returns the position of a stream; undefined if none is stored.
  async position(stream) {
    try {
      return await readFile(join(this.#dir, fileName('position', stream)), 'utf8');
    } catch (err) {
      if (err.code !== 'ENOENT') throw err;
      return undefined;
    }
  }

  setPosition(stream, position) {
    return this.#replace(fileName('position', stream), position);
  }

  // #replace writes a file of the store, whole or not at all.
  async #replace(name, content) {
    const path = join(this.#dir, name);
    await rename(await this.#write(content), path);
    await sync(dirname(path));
  }

  // #write writes a durable temporary file and returns its path.
  async #write(content) {
    const path = join(this.#dir, 'tmp', randomUUID());
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    return path;
  }
}

// sync makes the names of the files in a directory durable.
async function sync(dir) {
  const directory = await open(dir);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
