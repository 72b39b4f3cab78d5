import { randomUUID } from 'node:crypto';
import createClient from 'openapi-fetch';
import type { components, paths } from './terbayar.js';

type NewPayment = components['schemas']['NewPayment'];

export const client = createClient<paths>({
  baseUrl: process.env.TERBAYAR_URL ?? 'http://127.0.0.1:8081',
  headers: process.env.TERBAYAR_KEY ? { Authorization: `Bearer ${process.env.TERBAYAR_KEY}` } : {},
});

export const run = randomUUID().slice(0, 8);

export function am(id: string, price: number): NewPayment {
  return {
    gateway: 'amdigipay',
    payment: {
      payment_id: 33,
      expired_date: '2036-12-31 23:59:59',
      nominal: price,
      admin_fee: 0,
      transaction_id: id,
      transaction_total: price,
      transaction_name: 'Kopi',
      transaction_desc: '',
      customer_number: '085925065195',
      customer_name: 'Siti',
      item_details: [{ item_id: 'kopi', item_name: 'Kopi', item_price: price, item_quantity: 1, item_total_price: price }],
    },
  };
}

export function paydia(id: string): NewPayment {
  return {
    gateway: 'paydia',
    customer_token: 'eyJ.customer.token',
    payment: { partnerReferenceNo: id, amount: { value: '10000.00', currency: 'IDR' }, title: 'Kopi' },
  };
}

// submit sends a payment until the answer is known, always the same one under the same id.
export async function submit(body: NewPayment, wait?: string) {
  for (let tries = 1; ; tries++) {
    try {
      const result = await client.POST('/v1/payments', { body, params: { query: { wait } } });
      if ((result.response.status < 500 && result.response.status !== 429) || tries === 10) return result;
    } catch (err) {
      if (tries === 10) throw err; // no answer: the payment may be recorded
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

export async function step(name: string, test: () => Promise<void>) {
  await test();
  console.log(`ok ${name}`);
}
