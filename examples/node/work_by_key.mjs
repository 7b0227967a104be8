// Work by key: the orders of a customer are handled in order, while workers come and go.
//
// Three workers share the orders of 100 customers. Those of one customer, the key, go to one worker
// at a time. A fourth joins in the middle, and one leaves with orders unread: its customers go to
// the others, whose next order of each is the one that comes next.

import { open } from 'libfastmq';

const CUSTOMERS = 100;
const ORDERS = 40;
const mq = open();
const next = new Array(CUSTOMERS).fill(0);
let handled = 0;
let mistakes = 0;

/** A worker that leaves after so many orders. */
async function work(orderMax) {
  const orders = mq.subscribe('order.*', { group: 'warehouse', groupMode: 'keyShared' });
  let taken = 0;
  for await (const batch of orders.batches({ max: 32 })) {
    for (const { payload } of batch) {
      const customer = payload.readUInt32LE(0);
      const number = payload.readUInt32LE(4);
      mistakes += number === next[customer] ? 0 : 1;
      next[customer] = number + 1;
    }
    handled += batch.length;
    taken += batch.length;
    // The next batch ends this one: now its orders are handled, and customers may move.
    await new Promise(setImmediate);
    if (taken >= orderMax) break;
  }
  // Ends its queue, too; what is in it goes to the others.
  orders.unsubscribe();
}

const workers = [work(CUSTOMERS * ORDERS / 10), work(Infinity), work(Infinity)];
for (let number = 0; number < ORDERS; number += 1) {
  if (number === ORDERS / 2) workers.push(work(Infinity));
  for (let customer = 0; customer < CUSTOMERS; customer += 1) {
    const order = Buffer.alloc(8);
    order.writeUInt32LE(customer, 0);
    order.writeUInt32LE(number, 4);
    // Waits while the customer is on the way to another worker.
    await mq.publishWait('order.new', order, { key: String(customer), timeout: 10_000 });
  }
}
await mq.drain();
await Promise.all(workers);
console.log(
  `${handled} orders of ${CUSTOMERS} customers were handled, ${mistakes} of them out of order`,
);
mq.close();
process.exitCode = handled === CUSTOMERS * ORDERS && mistakes === 0 ? 0 : 1;
