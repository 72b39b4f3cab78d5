// Cancels payments that no worker has sent yet: stop the workers before you run it.

import assert from 'node:assert/strict';
import { am, client, run, step, submit } from './client.js';

const id = `TS-${run}/cancel`;
const query = { gateway: 'amdigipay', id } as const;

await step('a payment that is queued is cancelled', async () => {
  assert.equal((await submit(am(id, 13000))).response.status, 202);
  const { data, error } = await client.DELETE('/v1/payments', { params: { query } });
  assert.equal(data?.status, 'cancelled', JSON.stringify(error));
});

await step('it is cancelled once', async () => {
  const { data } = await client.DELETE('/v1/payments', { params: { query } });
  assert.equal(data?.status, 'cancelled');
});

await step('its id stays taken', async () => {
  const { data, response } = await submit(am(id, 13000));
  assert.equal(response.status, 200);
  assert.equal(data?.status, 'cancelled');
});
