// What a message costs in Node: the rows of the binding, each as one line of JSON.
//
//     node benches/node/rows.mjs [--only REGEX] [--runs 5] [--ms 300] [--peers]
//
// One message is one published and received, one request is one with its answer. 16-byte payloads.
// With FASTMQ_URL also over a server in another process; with --peers what `peers.mjs` has, which
// does the same work with `zeromq` and `nats`.

import { fileURLToPath } from 'node:url';
import path from 'node:path';

const here = path.dirname(fileURLToPath(import.meta.url));
const packagePath = process.env.FASTMQ_NODE ?? path.join(here, '../../bindings/node');
const { open, connect } = await import(path.join(path.resolve(packagePath), 'index.mjs'));

const flag = (name, otherwise) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : process.argv[at + 1];
};
const only = new RegExp(flag('only', '.'));
const runs = Number(flag('runs', 5));
const ms = Number(flag('ms', 300));
const payload = Buffer.alloc(16, 7);
const BATCH = 1024;
/** Messages of a publisher that may be under way, where two clients use one server. */
const WINDOW = 8 * BATCH;
const payloads = new Array(BATCH).fill(payload);

/** Calls `round`, which gives how many it has done, for `ms` milliseconds; how many a second. */
async function rate(round) {
  const from = performance.now();
  let done = 0;
  let now = from;
  while (now - from < ms) {
    done += await round();
    now = performance.now();
  }
  return (done / (now - from)) * 1000;
}

const rows = {
  async 'embedded, batches of 1024, each way'(mq) {
    const all = mq.subscribe('bench');
    const publisher = mq.publisher('bench');
    return () => {
      let got = publisher.publishBatch(payloads);
      const sent = got;
      while (got > 0) {
        const batch = all.tryReceive(0);
        for (const message of batch) if (message.size !== 16) throw new Error('size');
        got -= batch.length;
      }
      return sent;
    };
  },
  async 'embedded, columns of 1024, each way'(mq) {
    const all = mq.subscribe('bench');
    const publisher = mq.publisher('bench');
    const data = Buffer.alloc(16 * BATCH, 7);
    const offsets = Uint32Array.from({ length: BATCH + 1 }, (_, index) => index * 16);
    return () => {
      let got = publisher.publishColumns(data, offsets);
      const sent = got;
      while (got > 0) {
        const batch = all.tryReceive(0);
        for (const message of batch) if (message.size !== 16) throw new Error('size');
        got -= batch.length;
      }
      return sent;
    };
  },
  async 'embedded, publish only, batches of 1024'(mq) {
    mq.subscribe('bench', { queue: mq.queue({ policy: 'dropOldest', capacity: 1 << 20 }) });
    const publisher = mq.publisher('bench');
    return () => publisher.publishBatch(payloads);
  },
  async 'embedded, one call per message by handle, each way'(mq) {
    const all = mq.subscribe('bench');
    const publisher = mq.publisher('bench');
    return () => {
      for (let index = 0; index < BATCH; index += 1) publisher.publish(payload);
      for (let got = 0; got < BATCH;) {
        const batch = all.tryReceive(0);
        for (const message of batch) got += message.size >> 4;
      }
      return BATCH;
    };
  },
  async 'embedded, one call per message by subject, each way'(mq) {
    const all = mq.subscribe('bench');
    return () => {
      for (let index = 0; index < BATCH; index += 1) mq.publish('bench', payload);
      for (let got = 0; got < BATCH;) {
        const batch = all.tryReceive(0);
        for (const message of batch) got += message.size >> 4;
      }
      return BATCH;
    };
  },
  async 'embedded, for await over messages with their payloads'(mq) {
    const all = mq.subscribe('bench');
    const publisher = mq.publisher('bench');
    const messages = all[Symbol.asyncIterator]();
    return async () => {
      publisher.publishBatch(payloads);
      for (let got = 0; got < BATCH; got += 1) {
        const { value } = await messages.next();
        if (value.payload[0] !== 7) throw new Error('payload');
      }
      return BATCH;
    };
  },
  async 'embedded requests, many in flight in batches'(mq) {
    mq.respond('ask', { max: 4096 }, (request) => request.payload).unref();
    const requester = mq.requester({ subject: 'ask', inFlightMax: 4096 });
    return async () => (await requester.requestBatch(payloads)).length;
  },
  async 'embedded requests, many in flight, a promise each'(mq) {
    mq.respond('ask', { max: 4096 }, (request) => request.payload).unref();
    return async () => {
      const open = new Array(BATCH);
      for (let index = 0; index < BATCH; index += 1) open[index] = mq.request('ask', payload);
      return (await Promise.all(open)).length;
    };
  },
  async 'embedded requests, one awaited at a time'(mq) {
    mq.respond('ask', (request) => request.payload).unref();
    return async () => {
      await mq.request('ask', payload);
      return 1;
    };
  },
};

for (const polled of [false, true]) {
  const how = polled ? 'polled' : 'by a thread';
  rows[`a server in this process over tcp, ${how}, batches of 1024, to a local queue`] =
    async (mq, after) => {
      const server = mq.listen('tcp://127.0.0.1:0');
      const client = await connect(server.url, { polled });
      after(() => client.close(), () => server.close());
      const all = mq.subscribe('bench');
      const publisher = client.publisher('bench');
      return async () => {
        const sent = publisher.publishBatch(payloads);
        for (let got = 0; got < sent;) got += (await all.receive({ max: 0 })).length;
        return sent;
      };
    };
  rows[`a server in this process over tcp, ${how}, requests, 256 in flight`] =
    async (mq, after) => {
      const server = mq.listen('tcp://127.0.0.1:0');
      const client = await connect(server.url, { polled });
      after(() => client.close(), () => server.close());
      mq.respond('ask', (request) => request.payload).unref();
      return async () => {
        const open = Array.from({ length: 256 }, () => client.request('ask', payload));
        return (await Promise.all(open)).length;
      };
    };
}

if (process.env.FASTMQ_URL !== undefined) {
  // A server in another process, and two clients here, as the peers have it.
  const two = (after) => Promise.all([1, 2].map(async () => {
    const client = await connect(process.env.FASTMQ_URL, { polled: true });
    after(() => client.close());
    return client;
  }));
  rows['fastmq over tcp, two clients, each way'] = async (mq, after) => {
    const [one, other] = await two(after);
    const all = other.subscribe('bench');
    let waiting = 0;
    return async () => {
      for (const each of payloads) one.publish('bench', each);
      waiting += BATCH;
      while (waiting > WINDOW) waiting -= (await all.receive({ max: 0 })).length;
      return BATCH;
    };
  };
  rows['fastmq over tcp, two clients, batches of 1024, each way'] = async (mq, after) => {
    const [one, other] = await two(after);
    const all = other.subscribe('bench');
    const publisher = one.publisher('bench');
    let waiting = 0;
    return async () => {
      const sent = publisher.publishBatch(payloads);
      waiting += sent;
      while (waiting > WINDOW) waiting -= (await all.receive({ max: 0 })).length;
      return sent;
    };
  };
  rows['fastmq requests over tcp, two clients, 256 in flight'] = async (mq, after) => {
    const [one, other] = await two(after);
    other.respond('ask', (request) => request.payload).unref();
    return async () => {
      const open = Array.from({ length: 256 }, () => one.request('ask', payload));
      return (await Promise.all(open)).length;
    };
  };
}

if (process.argv.includes('--peers')) Object.assign(rows, (await import('./peers.mjs')).rows);

for (const [name, prepare] of Object.entries(rows)) {
  if (!only.test(name)) continue;
  const rates = [];
  for (let run = 0; run < runs; run += 1) {
    const mq = open();
    const afters = [];
    const round = await prepare(mq, (...more) => afters.push(...more), payloads);
    for (let warm = 0; warm < 20; warm += 1) await round();
    rates.push(await rate(round));
    for (const after of afters) await after();
    mq.close();
  }
  rates.sort((a, b) => a - b);
  const [low, median, high] = [rates[0], rates[rates.length >> 1], rates.at(-1)].map(Math.round);
  console.log(JSON.stringify({ name, unit: '1/s', median, low, high, runs }));
}
process.exit(0);
