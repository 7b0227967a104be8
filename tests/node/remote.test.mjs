// Clients of servers, other processes, other threads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  connected, fails, fastmq, opened, packagePath, run, take, turn, urls,
} from './support.mjs';

for (const url of urls()) {
  for (const polled of [false, true]) {
    const name = `over ${url.split(':')[0]}, ${polled ? 'polled' : 'by a thread'}`;

    test(`${name}: messages and requests cross a server in this process`, async (t) => {
      const broker = opened(t);
      const server = broker.listen(url, { name: 'hub' });
      t.after(() => server.close());
      const events = [];
      const onEvent = (event) => events.push(event);
      const client = await connected(t, server.url, { polled, name: 'node', onEvent });
      const local = broker.subscribe('to.broker');
      const remote = client.subscribe('to.client');
      broker.publish('to.client', 'down');
      assert.deepEqual(await take(remote, 1), ['down']);
      const publisher = client.publisher('to.broker');
      const texts = Array.from({ length: 3000 }, (_, index) => String(index));
      for (const text of texts) await publisher.publishWait(text);
      assert.deepEqual(await take(local, texts.length), texts);
      broker.respond('double', (request) => String(Number(request.text()) * 2));
      client.respond('triple', async (request) => String(Number(request.text()) * 3));
      const asked = texts.slice(0, 1000);
      const [doubled, tripled] = await Promise.all([
        Promise.all(asked.map((text) => client.request('double', text))),
        Promise.all(asked.map((text) => broker.request('triple', text))),
      ]);
      assert.ok(doubled.every((answer, index) => Number(answer.text()) === index * 2));
      assert.ok(tripled.every((answer, index) => Number(answer.text()) === index * 3));
      client.respond('count', async function* count() {
        for (let index = 0; index < 100; index += 1) yield String(index);
      });
      let count = 0;
      for await (const reply of broker.requestStream('count', '', { credit: 4 })) {
        assert.equal(reply.text(), String(count));
        count += 1;
      }
      assert.equal(count, 100);
      const large = Buffer.alloc(900_000, 3);
      client.publish('to.broker', large);
      assert.deepEqual((await local.receive({ timeout: 20_000 })).at(0).payload, large);
      await fails(assert, 'FASTMQ_NO_RESPONDER', () => client.request('nobody'));
      const silent = broker.subscribe('silent');
      await fails(assert, 'FASTMQ_TIMEOUT', () => client.request('silent', '', { timeout: 10 }));
      silent.close();
      await fails(assert, 'FASTMQ_UNSUPPORTED', () => client.listen('tcp://127.0.0.1:0'));
      assert.deepEqual([events[0].kind, events[0].server, events[0].isAgain],
        ['connected', 'hub', false]);
      await server.close();
      while (events.every((event) => event.kind !== 'disconnected')) await turn();
      await client[Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]();
      await fails(assert, 'FASTMQ_CLOSED', () => client.publish('a'));
    });

    test(`${name}: another process is served`, async (t) => {
      const broker = opened(t);
      const server = broker.listen(url, { token: 'secret' });
      t.after(() => server.close());
      broker.respond('greet', (request) => `hello ${request.text()}`);
      const got = broker.subscribe('from.child');
      const { code, out, err } = await run(`
        (async () => {
          const options = { token: 'secret', polled: ${polled} };
          const client = await fastmq.connect(${JSON.stringify(server.url)}, options);
          console.log((await client.request('greet', 'child')).text());
          for (let index = 0; index < 100; index += 1) client.publish('from.child', String(index));
          client.close();
        })();
      `);
      assert.deepEqual([code, out], [0, 'hello child'], err);
      assert.equal((await take(got, 100)).at(-1), '99');
    });
  }
}

test('a wrong token is denied, and a new one is taken over', async (t) => {
  const broker = opened(t);
  const server = broker.listen('tcp://127.0.0.1:0', { token: 'old' });
  t.after(() => server.close());
  await fails(assert, 'FASTMQ_DENIED', () => fastmq.connect(server.url, { token: 'new' }));
  server.change({ token: 'new' });
  await connected(t, server.url, { token: 'new' });
});

test('a server that is not there is told', async () => {
  await fails(assert, 'FASTMQ_UNAVAILABLE', () => fastmq.connect('unix:/nobody/listens/here'));
});

test('a client that connects later waits for its server', async (t) => {
  const [url] = urls();
  const client = await connected(t, url, { later: true, backoffMin: 1, backoffMax: 5 });
  client.publish('early', '1');
  const broker = opened(t);
  const early = broker.subscribe('early');
  const server = broker.listen(url);
  t.after(() => server.close());
  assert.deepEqual(await take(early, 1), ['1']);
});

test('a broken connection is told, and comes back', async (t) => {
  const [url] = urls();
  const broker = opened(t);
  let server = broker.listen(url);
  const events = [];
  const options = { backoffMin: 1, backoffMax: 5, onEvent: (event) => events.push(event) };
  const client = await connected(t, url, options);
  const all = client.subscribe('a');
  broker.subscribe('silent').queue.ref();
  const silent = broker.subscribe('silent');
  const request = client.request('silent');
  while (silent.tryReceive() === null) await turn();
  server[Symbol.dispose ?? Symbol.for('Symbol.dispose')]();
  const error = await request.catch((reason) => reason);
  assert.ok(['FASTMQ_DISCONNECTED', 'FASTMQ_CANCELLED'].includes(error.code), error.code);
  server = broker.listen(url);
  t.after(() => server.close());
  while (!events.some((event) => event.isAgain)) await turn();
  // The event says that the subscription was asked for again, not that the server has it.
  let batch = null;
  for (; batch === null; batch = all.tryReceive()) {
    broker.publish('a', 'again');
    await turn();
  }
  assert.equal(batch.at(0).text(), 'again');
  assert.ok(events.some((event) => event.kind === 'disconnected'));
});

test('threads share one broker', async (t) => {
  const client = opened(t);
  const workerData = { packagePath, key: client.share() };
  const squares = client.requester({ subject: 'square', inFlightMax: 1000 });
  const ready = client.subscribe('ready');
  const workers = [1, 2].map(() => new Worker(`
    const { packagePath, key } = require('node:worker_threads').workerData;
    const client = require(packagePath).attach(key);
    const work = client.respond('square', { group: 'workers' },
      (request) => String(Number(request.text()) ** 2));
    const stop = client.subscribe('stop', () => {
      work.unsubscribe();
      stop.unsubscribe();
    });
    client.publish('ready');
  `, { eval: true, workerData }));
  const ended = workers.map((worker) => new Promise((resolve, reject) => {
    worker.on('exit', resolve);
    worker.on('error', reject);
  }));
  await take(ready, 2);
  const numbers = Array.from({ length: 5000 }, (_, index) => index);
  const answers = await squares.requestBatch(numbers.map(String), { timeout: 30_000 });
  assert.ok(answers.every((answer, index) => Number(answer.text()) === index ** 2));
  client.publish('stop');
  assert.deepEqual(await Promise.all(ended), [0, 0]);
});

test('the log comes to its callback', async (t) => {
  const lines = [];
  fastmq.setLog('debug', (level, target, text) => lines.push({ level, target, text }));
  t.after(() => fastmq.setLog('off'));
  const broker = opened(t);
  const server = broker.listen('tcp://127.0.0.1:0');
  await connected(t, server.url);
  await server.close();
  for (let turns = 0; lines.length === 0 && turns < 1000; turns += 1) await turn();
  assert.ok(lines.every((line) => line.text.length > 0 && line.target.length > 0));
  assert.ok(lines.length > 0);
});

test('another event loop has a descriptor', (t) => {
  const client = opened(t);
  assert.equal(client.nextDeadline, Infinity);
  assert.ok(client.fd > 2);
  const all = client.subscribe('a');
  assert.ok(all.queue.fd > 2);
  client.publish('a', '1');
  assert.equal(client.dispatch({ max: 10, budget: 5 }).messages, true);
  assert.equal(all.tryReceive().length, 1);
});
