const priority = 'interactive'; // a customer waits at the checkout: before what is normal

// newPayment returns the JSON text of a payment, and its total in rupiah. Amounts are whole rupiah:
// integers, never floats.
//
// The text is stored with the order and sent as it is on every try. If it were made again for a
// retry, a new expired_date would make it another payment: "conflict".
export function newPayment(id, { gateway, items, fee = 0, customer, title, customer_token }) {
  const goods = items.reduce((sum, item) => sum + item.price * item.quantity, 0);
  const total = goods + fee;
  if (!Number.isSafeInteger(total) || total <= 0) throw new Error('the total must be a positive integer');
  if (gateway === 'paydia') {
    const payment = { partnerReferenceNo: id, amount: { value: `${total}.00`, currency: 'IDR' }, title };
    return { total, text: JSON.stringify({ gateway, priority, customer_token, payment }) };
  }
  const payment = {
    payment_id: 33, // QRIS
    expired_date: jakartaTime(Date.now() + 24 * 3600_000), // until when the customer can pay
    nominal: goods,
    admin_fee: fee,
    transaction_id: id,
    transaction_total: total,
    transaction_name: title,
    transaction_desc: '',
    customer_number: customer.number,
    customer_name: customer.name,
    item_details: items.map((item) => ({
      item_id: item.id,
      item_name: item.name,
      item_price: item.price,
      item_quantity: item.quantity,
      item_total_price: item.price * item.quantity,
    })),
  };
  if (fee > 0) {
    payment.item_details.push({ item_id: 'fee', item_name: 'fee', item_price: fee, item_quantity: 1, item_total_price: fee });
  }
  return { total, text: JSON.stringify({ gateway, priority, payment }) };
}

// jakartaTime returns a time as AM writes it: YYYY-MM-DD HH:mm:ss in Asia/Jakarta, which is
// UTC+7 all year.
function jakartaTime(milliseconds) {
  return new Date(milliseconds + 7 * 3600_000).toISOString().slice(0, 19).replace('T', ' ');
}
