// Bad input: each mistake is an error that names it, and none is more than that.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { fails, fastmq, opened, run, turn } from './support.mjs';

test('wrong types are told', async (t) => {
  const client = opened(t);
  const publisher = client.publisher('a');
  const queue = client.queue();
  const wrong = [
    () => client.publish(5, 'x'), () => client.publish(undefined), () => client.publish('a', 5),
    () => client.publish('a', {}), () => client.publish('a', Symbol('x')),
    () => client.publish('a', () => {}), () => client.publish('a', [1, 2]),
    () => client.publish('', 'x'), () => client.publish('a..b', 'x'),
    () => client.publish('a.*', 'x'), () => client.publish('a', 'x', { ttl: -1 }),
    () => client.publish('a', 'x', { ttl: '5' }), () => client.publish('a', 'x', { ttl: NaN }),
    () => client.publish('a', 'x', { keepLast: 1 }), () => client.publish('a', 'x', { key: 1 }),
    () => client.publish('a', 'x', { priority: 1 }), () => client.publish('a', 'x', 'options'),
    () => client.publish('a', 'x', null), () => client.publish('a', 'x', { headers: 5 }),
    () => client.publish('a', 'x', { headers: { '': 'x' } }),
    () => client.publish('a', 'x', { headers: [['a', 5]] }),
    () => publisher.publish(5), () => publisher.publishBatch('abc'),
    () => publisher.publishBatch(Buffer.from('abc')), () => publisher.publishBatch([1]),
    () => publisher.publishColumns(Buffer.from('abc'), [0, 1]),
    () => publisher.publishColumns(Buffer.from('abc'), Uint32Array.from([0, 4])),
    () => publisher.publishColumns(Buffer.from('abc'), Uint32Array.from([2, 1])),
    () => publisher.claim(), () => publisher.claim(-1), () => publisher.claim(1.5),
    () => client.queue({ policy: 'newest' }), () => client.queue({ capacity: -1 }),
    () => client.queue({ polcy: 'latest' }), () => client.queue({ capacity: 2 ** 40 }),
    () => client.subscribe('a.>.b'), () => client.subscribe(5), () => client.subscribe('a', 5),
    () => client.subscribe('a', { queue: {} }), () => client.subscribe('a', { tag: -1 }),
    () => client.subscribe('a', { weight: 2 }), () => client.subscribe('a', {}, 'callback'),
    () => client.subscribe('a', { queue }, () => {}), () => client.respond('a'),
    () => client.respond('a', { onError: 5 }, () => {}), () => client.request(5),
    () => client.request('a', 'x', { timeout: -1 }), () => client.request('a', 'x', { signal: 5 }),
    () => client.requestStream('a', 'x', { credit: -1 }),
    () => client.requestMany('a', 'x', { credit: 1 }), () => client.requester({ subject: 'a.*' }),
    () => client.requester({ inFlightMax: 70_000 }), () => client.listen('http://x'),
    () => client.listen(5), () => client.listen([]), () => client.reply({}, 'x'),
    () => queue.receive({ max: -1 }), () => queue.receive({ timeout: 'soon' }),
    () => queue.tryReceive(1.5), () => fastmq.open({ payloadMax: 2 ** 40 }), () => fastmq.open(5),
    () => fastmq.open({ wait: 'never' }), () => fastmq.connect('http://x'),
    () => fastmq.connect(5), () => fastmq.attach(), () => fastmq.attach('1'),
    () => fastmq.open({ wait: 5n }), () => fastmq.open({ memory: 5 }), () => client.publishBatch(5),
    () => client.publishBatch([null]), () => client.publish('a', 'x', { headers: [5] }),
    () => fastmq.setLog('loud'), () => new fastmq.Client(), () => new fastmq.Headers(5),
  ];
  for (const [index, body] of wrong.entries()) {
    const error = await fails(assert, 'FASTMQ_INVALID', async () => body())
      .catch((failure) => assert.fail(`${index}: ${body}: ${failure.message}`));
    assert.doesNotMatch(error.message, /invalid argument/i);
  }
  await fails(assert, 'FASTMQ_DENIED', () => client.publish('$SYS.x'));
  await fails(assert, 'FASTMQ_TOO_LARGE', () => client.publish('a', Buffer.alloc(2 ** 20 + 1)));
  await fails(assert, 'FASTMQ_TOO_LARGE',
    () => client.publish('a', '', { headers: { a: Buffer.alloc(65_536) } }));
  await fails(assert, 'FASTMQ_NOT_FOUND', () => fastmq.attach(4_000_000_000));
  client.subscribe('g', { group: 'g' });
  await fails(assert, 'FASTMQ_CONFLICT',
    () => client.subscribe('g', { group: 'g', groupMode: 'keyShared' }));
  assert.equal(client.statistics().published, 0);
});

test('the sentence is that of the library', (t) => {
  const client = opened(t);
  assert.throws(() => client.publish('bad..x'), {
    name: 'FastmqError',
    code: 'FASTMQ_INVALID',
    message: 'subject "bad..x" has an empty token at byte 4',
  });
});

test('a closed handle says so, and closes again', async (t) => {
  const client = opened(t);
  const queue = client.queue();
  const subscription = client.subscribe('a');
  const publisher = client.publisher('a');
  const requester = client.requester({ subject: 'a' });
  const server = client.listen('tcp://127.0.0.1:0');
  for (const handle of [queue, subscription, publisher, requester]) {
    handle.close();
    handle.close();
  }
  await server.close();
  await server.close();
  await fails(assert, 'FASTMQ_CLOSED', () => queue.tryReceive());
  await fails(assert, 'FASTMQ_CLOSED', () => queue.receive());
  await fails(assert, 'FASTMQ_CLOSED', () => queue.statistics());
  await fails(assert, 'FASTMQ_CLOSED', () => queue.fd);
  await fails(assert, 'FASTMQ_CLOSED', () => client.subscribe('a', { queue }));
  await fails(assert, 'FASTMQ_CLOSED', () => subscription.receive());
  await fails(assert, 'FASTMQ_MISUSE', () => publisher.publish('x'));
  await fails(assert, 'FASTMQ_MISUSE', () => publisher.publishBatch(['x']));
  await fails(assert, 'FASTMQ_MISUSE', () => publisher.claim(1));
  await fails(assert, 'FASTMQ_MISUSE', () => publisher.publishWait('x'));
  await fails(assert, 'FASTMQ_MISUSE', () => requester.request('x'));
  await fails(assert, 'FASTMQ_MISUSE', () => requester.requestStream('x'));
  await fails(assert, 'FASTMQ_MISUSE', () => server.change({ token: 'x' }));
  assert.equal(subscription.statistics().delivered, 0);
});

test('a closed client says so to all its handles', async (t) => {
  const client = opened(t);
  const queue = client.queue();
  const subscription = client.subscribe('a');
  const publisher = client.publisher('a');
  const requester = client.requester({ subject: 'a' });
  const waiting = subscription.receive();
  const responder = client.respond('never', () => new Promise(() => {}));
  const asking = [
    client.request('never'), client.requestMany('never'), client.requestStream('never').next(),
    requester.requestTo('never'),
  ];
  for (const promise of asking) promise.catch(() => {});
  while (responder.statistics().delivered < asking.length) await turn();
  const key = client.share();
  const claims = [1, 2, 3].map(() => client.publisher('a').claim(10));
  client.close();
  client.close();
  await fails(assert, 'FASTMQ_CLOSED', () => claims[0].commit());
  claims[1].abandon();
  claims[2].bytes.fill(1);
  await fails(assert, 'FASTMQ_CLOSED', () => waiting);
  for (const promise of asking) await fails(assert, 'FASTMQ_CLOSED', () => promise);
  for (const body of [
    () => client.publish('a'), () => client.publish('a', Buffer.alloc(10_000)),
    () => client.publish('a', 'x', { key: 'k' }), () => client.publishWait('a'),
    () => client.publisher('a'), () => client.queue(), () => client.subscribe('a'),
    () => client.request('a'), () => client.requester(), () => client.drain(),
    () => client.listen('tcp://127.0.0.1:0'), () => client.fd, () => client.dispatch(),
    () => queue.tryReceive(), () => subscription.receive(), () => publisher.publish('x'),
    () => publisher.publishBatch(['x']), () => publisher.claim(1), () => requester.request('x'),
  ]) {
    await fails(assert, 'FASTMQ_CLOSED', async () => body())
      .catch((failure) => assert.fail(`${body}: ${failure.message}`));
  }
  await fails(assert, 'FASTMQ_NOT_FOUND', () => fastmq.attach(key));
  for (const handle of [queue, subscription, publisher, requester]) handle.close();
});

test('what gives a promise rejects and does not throw', async (t) => {
  const client = opened(t);
  for (const body of [
    () => client.publishWait('a', 'x', { timeout: -1 }),
    () => client.publisher('a').publishWait('x', { signal: 5 }),
  ]) {
    const promise = body();
    await fails(assert, 'FASTMQ_INVALID', () => promise);
  }
});

test('a batch says how many were published before a wrong message', async (t) => {
  const client = opened(t);
  const error = await fails(assert, 'FASTMQ_INVALID',
    () => client.publishBatch([{ subject: 'a' }, { subject: 5 }]));
  assert.equal(error.accepted, 1);
});

test('two receives of one queue do not wait together', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  const first = all.receive();
  await fails(assert, 'FASTMQ_MISUSE', () => all.receive());
  await fails(assert, 'FASTMQ_MISUSE', () => all.tryReceive());
  client.publish('a', '1');
  assert.equal((await first).at(0).text(), '1');
});

test('a payload that is changed after the call was copied', (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  for (const size of [16, 1000, 100_000]) {
    const bytes = Buffer.alloc(size, 1);
    client.publish('a', bytes);
    bytes.fill(2);
    assert.deepEqual(all.tryReceive().at(0).payload, Buffer.alloc(size, 1));
  }
});

test('a payload that is changed while its publish waits for room was copied', async (t) => {
  const client = opened(t);
  const queue = client.queue({ capacity: 4096 });
  client.subscribe('a', { queue });
  while (client.tryPublish('a', Buffer.alloc(100)));
  const bytes = Buffer.alloc(100, 1);
  const headers = new fastmq.Headers({ name: bytes });
  const options = { key: bytes, headers };
  const publisher = client.publisher('a');
  const waiting = [
    client.publishWait('a', bytes, options), client.publishWait('a', bytes.buffer, options),
    publisher.publishWait(bytes, options),
  ];
  bytes.fill(2);
  headers.clear();
  let batch = queue.tryReceive();
  const got = [];
  while (got.length < waiting.length) {
    for (const message of batch ?? []) {
      if (message.key.length > 0) got.push([message.key, message.payload, message.header('name')]);
    }
    await turn();
    batch = queue.tryReceive();
  }
  await Promise.all(waiting);
  const ones = Buffer.alloc(100, 1);
  assert.deepEqual(got.map(([key, , header]) => [key, header]), Array(3).fill([ones, ones]));
  assert.ok(got.every(([, payload]) => payload.includes(ones)));
});

test('bytes that another thread writes meanwhile are copied first', (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  const shared = new Uint8Array(new SharedArrayBuffer(1000)).fill(1);
  client.publish('a', shared);
  client.publisher('a').publishBatch([shared, shared.buffer]);
  shared.fill(2);
  const payloads = [];
  while (payloads.length < 3) {
    payloads.push(...all.tryReceive().messages.map((message) => message.payload));
  }
  assert.deepEqual(payloads, Array(3).fill(Buffer.alloc(1000, 1)));
});

test('what a detached or empty buffer has is nothing', (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  const { buffer } = new Uint8Array(8);
  const view = new Uint8Array(buffer);
  structuredClone(buffer, { transfer: [buffer] });
  client.publish('a', view);
  client.publish('a', buffer);
  client.publish('a', view, { key: view });
  assert.ok(all.tryReceive().messages.every((message) => message.size === 0));
});

test('the bytes of messages and claims cannot be transferred away', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  client.publish('a', 'x'.repeat(1000));
  const { payload } = all.tryReceive().at(0);
  const publisher = client.publisher('a');
  const claim = publisher.claim(100);
  for (const { buffer } of [payload, claim.bytes]) {
    try {
      structuredClone(buffer, { transfer: [buffer] });
    } catch (error) {
      assert.equal(error.name, 'DataCloneError');
    }
  }
  assert.equal(payload.toString(), 'x'.repeat(1000));
  if (claim.bytes.length === 100) claim.commit();
  else await fails(assert, 'FASTMQ_MISUSE', () => claim.commit());
  // Where the language itself moves them, the claim never ends, and its memory stays.
  if (typeof ArrayBuffer.prototype.transfer === 'function') {
    const other = client.publisher('a');
    const moved = other.claim(100);
    const bytes = Buffer.from(moved.bytes.buffer.transfer());
    await fails(assert, 'FASTMQ_MISUSE', () => moved.commit());
    await fails(assert, 'FASTMQ_MISUSE', () => other.publish('x'));
    other.close();
    bytes.fill(7);
  }
});

test('a message that is no request has no answer', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  let calls = 0;
  client.respond('a', () => {
    calls += 1;
    return 'x';
  });
  client.publish('a', '1');
  while (calls === 0) await turn();
  const message = all.tryReceive().at(0);
  await fails(assert, 'FASTMQ_INVALID', () => message.reply('x'));
  await fails(assert, 'FASTMQ_INVALID', () => client.replyStream(message));
  await fails(assert, 'FASTMQ_INVALID', () => message.reply('x', { code: 'FASTMQ_FINE' }));
  assert.equal(client.statistics().answers, 0);
});

test('a thread that ends with everything open ends well', async () => {
  for (let round = 0; round < 3; round += 1) {
    const worker = new Worker(`
      const fastmq = require(require('node:worker_threads').workerData);
      const client = fastmq.open();
      const all = client.subscribe('a');
      client.respond('b', () => new Promise(() => {}));
      client.request('b');
      const queue = client.queue({ capacity: 4096 });
      client.subscribe('c', { queue });
      while (client.tryPublish('c', 'x'.repeat(100)));
      client.publishWait('c', 'x'.repeat(100));
      globalThis.claim = client.publisher('a').claim(1000);
      client.listen('tcp://127.0.0.1:0');
      all.receive();
      setTimeout(() => process.exit(7), 20);
    `, { eval: true, workerData: (await import('./support.mjs')).packagePath });
    const code = await new Promise((resolve, reject) => {
      worker.on('exit', resolve);
      worker.on('error', reject);
    });
    assert.equal(code, 7);
  }
});

test('a process that exits with everything open exits as it says', async () => {
  const { code, err } = await run(`
    const client = fastmq.open();
    client.listen('tcp://127.0.0.1:0');
    client.subscribe('a', () => {});
    globalThis.claim = client.publisher('a').claim(1000);
    client.request('a').catch(() => {});
    fastmq.connect('tcp://127.0.0.1:1', { later: true }).then(() => process.exit(3));
  `);
  assert.equal(code, 3, err);
});
