// Waiting: promises, iterators, back-pressure, and what keeps a process alive.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { fails, fastmq, opened, packagePath, run, take, turn } from './support.mjs';

test('a receive waits for its message', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  const received = all.receive();
  await turn();
  client.publish('a', '1');
  assert.equal((await received).at(0).text(), '1');
  assert.equal(all.tryReceive(), null);
  await fails(assert, 'FASTMQ_AGAIN', () => all.receive({ timeout: 0 }));
  const late = await fails(assert, 'FASTMQ_TIMEOUT', () => all.receive({ timeout: 5 }));
  assert.equal(late.name, 'TimeoutError');
  client.publish('a', '2');
  assert.deepEqual(await take(all, 1), ['2']);
});

test('a signal ends a receive, which loses nothing', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  const controller = new AbortController();
  const received = all.receive({ signal: controller.signal });
  controller.abort();
  await fails(assert, 'FASTMQ_CANCELLED', () => received);
  await fails(assert, 'FASTMQ_CANCELLED', () => all.receive({ signal: controller.signal }));
  client.publish('a', '1');
  assert.deepEqual(await take(all, 1), ['1']);
});

test('an iterator gives every message once, also when it is left', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  for (let index = 0; index < 100; index += 1) client.publish('a', String(index));
  const got = [];
  for await (const message of all) {
    got.push(Number(message.text()));
    if (got.length === 10) break;
  }
  for await (const message of all) {
    got.push(Number(message.text()));
    if (got.length === 12) break;
  }
  got.push(...(await take(all, 8)).map(Number));
  for await (const batch of all.batches({ max: 5 })) {
    assert.ok(batch.length <= 5);
    got.push(...batch.messages.map((message) => Number(message.text())));
    if (got.length === 100) break;
  }
  assert.deepEqual(got, Array.from({ length: 100 }, (_, index) => index));
});

test('iterators end when the queue is closed or drained, and when they are left', async (t) => {
  const client = opened(t);
  const [closed, left, drained, unsubscribed] =
    ['a', 'b', 'c', 'd'].map((pattern) => client.subscribe(pattern));
  const end = async (iterable) => {
    for await (const message of iterable) assert.ok(message);
    return 'ended';
  };
  const ends = [end(closed), end(drained.batches())];
  const iterator = left[Symbol.asyncIterator]();
  const next = iterator.next();
  await turn();
  assert.deepEqual(await iterator.return(), { done: true, value: undefined });
  assert.deepEqual(await next, { done: true, value: undefined });
  const batches = unsubscribed.batches();
  const batch = batches.next();
  unsubscribed.unsubscribe();
  assert.equal((await batch).done, true);
  closed.queue.close();
  assert.equal(await ends[0], 'ended');
  await client.drain();
  assert.equal(await ends[1], 'ended');
  await fails(assert, 'FASTMQ_END', () => drained.receive());
  await fails(assert, 'FASTMQ_CLOSED', () => closed.receive());
});

test('a slow consumer is waited for', async (t) => {
  const client = opened(t);
  const slow = client.subscribe('s', { queue: client.queue({ capacity: 4096 }) });
  const publisher = client.publisher('s');
  const count = 500;
  const sent = (async () => {
    for (let index = 0; index < count; index += 1) {
      await publisher.publishWait(String(index).padStart(100));
    }
  })();
  const got = [];
  for await (const message of slow) {
    got.push(Number(message.text()));
    if (got.length === count) break;
    if (got.length % 50 === 0) await turn();
  }
  await sent;
  assert.deepEqual(got, Array.from({ length: count }, (_, index) => index));
  assert.ok(client.statistics().refused > 0);
});

test('publishes that wait keep their order and end in time', async (t) => {
  const client = opened(t);
  const queue = client.queue({ capacity: 4096 });
  client.subscribe('s', { queue });
  let full = 0;
  while (client.tryPublish('s', `${String(full).padStart(100)}`)) full += 1;
  await fails(assert, 'FASTMQ_AGAIN', () => client.publish('s', 'x'.repeat(100)));
  await fails(assert, 'FASTMQ_AGAIN', () => client.publishWait('s', 'x', { timeout: 0 }));
  await fails(assert, 'FASTMQ_TIMEOUT',
    () => client.publishWait('s', 'x'.repeat(100), { timeout: 5 }));
  const controller = new AbortController();
  const aborted = client.publishWait('s', 'x'.repeat(100), { signal: controller.signal });
  const waiting = [1, 2, 3].map((n) => client.publishWait('s', `late ${n}`.padStart(100)));
  controller.abort();
  await fails(assert, 'FASTMQ_CANCELLED', () => aborted);
  const texts = await take(queue, full + 3);
  await Promise.all(waiting);
  assert.deepEqual(texts.slice(full).map((text) => text.trim()), ['late 1', 'late 2', 'late 3']);
});

test('a callback gets every message, and no more of its promises wait than it says', async (t) => {
  const client = opened(t);
  const got = [];
  let running = 0;
  const subscription = client.subscribe('a', { max: 4 }, async (message) => {
    running += 1;
    assert.ok(running <= 4);
    await turn();
    running -= 1;
    got.push(message.text());
  });
  for (let index = 0; index < 20; index += 1) client.publish('a', String(index));
  while (got.length < 20) await turn();
  subscription.unsubscribe();
  subscription.unsubscribe();
  await subscription.done;
  client.publish('a', 'nobody');
  assert.equal(got.length, 20);
});

test('a callback that throws or rejects stops nothing', async (t) => {
  const client = opened(t);
  const errors = [];
  let seen = 0;
  const onError = (error, message) => errors.push(`${error.message} ${message.text()}`);
  client.subscribe('a', { onError }, (message) => {
    seen += 1;
    if (message.text() === '1') throw new Error('thrown');
    return message.text() === '2' ? Promise.reject(new Error('rejected')) : undefined;
  });
  for (const text of ['1', '2', '3']) client.publish('a', text);
  while (seen < 3) await turn();
  client.publish('a', '4');
  while (seen < 4) await turn();
  assert.deepEqual(errors.sort(), ['rejected 2', 'thrown 1']);
});

test('an error that nobody takes is an uncaught exception', async () => {
  const { code, err } = await run(`
    const client = fastmq.open();
    client.subscribe('a', () => { throw new Error('nobody takes this'); });
    client.publish('a');
  `);
  assert.equal(code, 1);
  assert.match(err, /nobody takes this/);
});

test('a consumer that always finds something leaves the loop its turns', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  let isOver = false;
  setTimeout(() => {
    isOver = true;
  }, 20);
  client.publish('a');
  for await (const batch of all.batches()) {
    assert.equal(batch.length, 1);
    if (isOver) break;
    client.publish('a');
  }
  assert.ok(isOver);
});

test('a process ends when nothing is awaited, and not before', async () => {
  const idle = await run(`
    const client = fastmq.open();
    client.subscribe('a');
    client.publisher('a').publish('1');
    client.queue();
    client.requester();
    console.log('idle');
  `);
  assert.deepEqual([idle.code, idle.out], [0, 'idle']);
  const waits = await run(`
    const client = fastmq.open();
    client.subscribe('a', (message) => {
      console.log(message.text());
      client.close();
    });
    setTimeout(() => client.publish('a', 'came'), 20).unref();
  `);
  assert.deepEqual([waits.code, waits.out], [0, 'came']);
  const asks = await run(`
    const client = fastmq.open();
    client.respond('a', () => new Promise((done) => setTimeout(() => done('b'), 20))).unref();
    client.request('a').then((answer) => console.log(answer.text()));
  `);
  assert.deepEqual([asks.code, asks.out], [0, 'b']);
  const unrefs = await run(`
    const client = fastmq.open();
    client.subscribe('a', () => {}).unref();
    client.respond('b', () => {}).unref();
    client.listen('tcp://127.0.0.1:0').unref();
    console.log('unref');
  `);
  assert.deepEqual([unrefs.code, unrefs.out], [0, 'unref']);
  const room = await run(`
    const client = fastmq.open();
    const queue = client.queue({ capacity: 4096 });
    client.subscribe('a', { queue });
    while (client.tryPublish('a', 'x'.repeat(100)));
    client.publishWait('a', 'last', { timeout: 50 }).catch((error) => console.log(error.code));
  `);
  assert.deepEqual([room.code, room.out], [0, 'FASTMQ_TIMEOUT']);
});

test('an onError that throws stops no consumer', async () => {
  const { code, out, err } = await run(`
    const client = fastmq.open();
    let thrown = 0;
    process.on('uncaughtException', () => { thrown += 1; });
    const onError = () => { throw new Error('in onError'); };
    const wrong = (message) => {
      if (message.text() === 'wrong') throw new Error('wrong');
      return 'right';
    };
    const { promise, resolve } = (() => {
      let settle;
      return { promise: new Promise((done) => { settle = done; }), resolve: settle };
    })();
    client.respond('ask', { onError }, wrong);
    client.subscribe('told', { onError }, (message) => {
      wrong(message);
      resolve();
    });
    (async () => {
      await client.request('ask', 'wrong').catch((error) => console.log(error.code));
      console.log((await client.request('ask', 'x')).text());
      client.publish('told', 'wrong');
      client.publish('told', 'x');
      await promise;
      setImmediate(() => {
        console.log(thrown);
        client.close();
      });
    })();
  `);
  assert.deepEqual([code, out], [0, 'FASTMQ_INTERNAL\nright\n2'], err);
});

test('handles of one client all hear of room, on one thread and on two', async (t) => {
  const client = opened(t);
  const key = client.share();
  const attached = fastmq.attach(key);
  const queue = client.queue({ capacity: 4096 });
  client.subscribe('a', { queue });
  while (client.tryPublish('a', 'x'.repeat(100)));
  const worker = new Worker(`
    const { parentPort, workerData } = require('node:worker_threads');
    const { attach } = require(workerData.packagePath);
    const waiting = attach(workerData.key).publishWait('a', '3'.repeat(100));
    parentPort.postMessage('waits');
    waiting.then(() => parentPort.postMessage('done'));
  `, { eval: true, workerData: { packagePath, key } });
  const all = [
    client.publishWait('a', '1'.repeat(100)), attached.publishWait('a', '2'.repeat(100)),
    once(worker, 'exit'),
  ];
  assert.deepEqual(await once(worker, 'message'), ['waits']);
  while (queue.tryReceive() !== null);
  const [, , [code]] = await Promise.all(all);
  assert.equal(code, 0);
});

test('a callback that unsubscribes is not called again', async (t) => {
  const client = opened(t);
  let calls = 0;
  const subscription = client.subscribe('a', () => {
    calls += 1;
    subscription.unsubscribe();
  });
  client.publishBatch([{ subject: 'a' }, { subject: 'a' }]);
  await subscription.done;
  assert.equal(calls, 1);
});
