/* node: --expose-gc */
// Ends that nobody has asked for: what is left half-way, threads and processes that go away with
// everything open, and handles collected in every order.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { fails, fastmq, opened, packagePath, run, take, turn, urls } from './support.mjs';

test('what was received stays as it was when its batch, queue and client are closed', (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  const options = { key: 'key', headers: { name: 'value' } };
  const read = ({ subject, payload, key, headers }) => [
    subject, payload.toString(), key.toString(), headers[0][0], headers[0][1].toString(),
  ];
  const kept = [];
  const close = [(batch) => batch.close(), () => all.tryReceive(), () => all.close()];
  for (const [index, body] of close.entries()) {
    client.publish('a', `payload ${index}`, options);
    const batch = all.tryReceive();
    kept.push(batch.at(0));
    body(batch);
    batch.close();
    assert.equal(batch.length, 1);
  }
  client.close();
  const expected = [0, 1, 2].map((index) => ['a', `payload ${index}`, 'key', 'name', 'value']);
  assert.deepEqual(kept.map(read), expected);
  assert.throws(() => kept[0].reply('x'), fastmq.FastmqError);
});

test('iterators that are dropped half-way lose nothing and hold nobody up', async (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  for (let index = 0; index < 50; index += 1) client.publish('a', String(index));
  const got = [];
  // Neither is left by `return`: nobody says that they are not wanted any more.
  for (const count of [7, 5]) {
    const iterator = all[Symbol.asyncIterator]();
    for (let index = 0; index < count; index += 1) {
      got.push((await iterator.next()).value.text());
    }
  }
  globalThis.gc();
  got.push(...await take(all, 8));
  const batches = all.batches({ max: 10 });
  got.push(...(await batches.next()).value.messages.map((message) => message.text()));
  await batches.return();
  got.push(...await take(all, 20));
  assert.deepEqual(got, Array.from({ length: 50 }, (_, index) => String(index)));
  client.respond('count', async function* count() {
    for (let index = 0; ; index += 1) yield String(index);
  });
  const dropped = client.requestStream('count', '', { credit: 4 });
  await dropped.next();
  // The credit of one that is not asked any more is not that of the next.
  for await (const reply of client.requestStream('count', '', { credit: 4 })) {
    if (reply.text() === '100') break;
  }
  await dropped.return();
});

test('a generator ends when its client is closed', async (t) => {
  const client = opened(t);
  let isEnded = false;
  client.respond('count', async function* count() {
    try {
      for (let index = 0; ; index += 1) yield String(index);
    } finally {
      isEnded = true;
    }
  });
  const replies = client.requestStream('count', '', { credit: 2 });
  assert.equal((await replies.next()).value.text(), '0');
  client.close();
  while (!isEnded) await turn();
  await fails(assert, 'FASTMQ_CLOSED', async () => {
    for await (const reply of replies) assert.ok(reply);
  });
});

test('a thread that is terminated in the midst of it leaves the others what they had', async (t) => {
  const client = opened(t);
  const key = client.share();
  const server = client.listen(urls()[0]);
  t.after(() => server.close());
  const ready = client.subscribe('ready');
  for (let round = 0; round < 3; round += 1) {
    const worker = new Worker(`
      const { packagePath, key, url } = require('node:worker_threads').workerData;
      const fastmq = require(packagePath);
      const client = fastmq.attach(key);
      globalThis.claim = client.publisher('a').claim(1000);
      client.subscribe('flood', async () => new Promise(() => {}));
      client.respond('never', () => new Promise(() => {}));
      client.respond('stream', async function* stream() { for (;;) yield 'x'; });
      client.subscribe('waiting').receive();
      client.request('never').catch(() => {});
      fastmq.open().listen('tcp://127.0.0.1:0');
      Promise.all([true, false].map((polled) => fastmq.connect(url, { polled }))).then((remote) => {
        for (const each of remote) each.subscribe('flood', () => {});
        client.publish('ready');
        const publisher = client.publisher('flood');
        setInterval(() => publisher.tryPublish('x'));
      });
    `, { eval: true, workerData: { packagePath, key, url: server.url } });
    worker.on('error', assert.fail);
    await take(ready, 1);
    const replies = client.requestStream('stream');
    await replies.next();
    const request = client.request('never', '', { timeout: 1 }).catch((reason) => reason);
    await worker.terminate();
    assert.ok(await request instanceof fastmq.FastmqError);
    await replies.return();
    const all = client.subscribe('a');
    client.publish('a', 'still here');
    assert.deepEqual(await take(all, 1), ['still here']);
    all.close();
  }
});

test('an event loop that ends with everything open ends well', async (t) => {
  const broker = opened(t);
  broker.respond('never', () => new Promise(() => {}));
  const { url } = broker.listen(urls()[0]);
  const { code, out, err } = await run(`
    const client = fastmq.open();
    client.listen('tcp://127.0.0.1:0').unref();
    const claim = client.publisher('a').claim(1000);
    client.respond('never', () => new Promise(() => {})).unref();
    client.subscribe('a', () => {}).unref();
    const all = client.subscribe('b');
    all.unref();
    const received = all.receive();
    const iterator = client.subscribe('c').unref()[Symbol.asyncIterator]();
    const next = iterator.next();
    const connecting = [true, false].map((polled) => fastmq.connect('${url}', { polled }));
    Promise.all(connecting)
      .then(([one, two]) => {
        const requester = one.requester().unref();
        requester.requestTo('never', 'x', { timeout: Infinity });
        two.subscribe('a', () => {}).unref();
        console.log('open');
      });
    process.on('exit', () => {
      client.publish('a', 'x');
      claim.bytes.fill(1);
      console.log('end');
    });
  `);
  assert.deepEqual([code, out], [0, 'open\nend'], err);
});

test('a child of fork has nothing of the brokers of its parent', async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'fastmq-fork-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = path.join(folder, 'child.cjs');
  writeFileSync(program, `
    const fastmq = require(${JSON.stringify(packagePath)});
    const mine = fastmq.open();
    const all = mine.subscribe('a');
    mine.publish('a', 'mine');
    if (all.tryReceive().at(0).text() !== 'mine') process.exit(6);
    process.on('message', async (url) => {
      if (url === 'end') process.exit(5);
      const client = await fastmq.connect(url);
      const answer = await client.request('parent', 'child');
      client.close();
      process.send(answer.text());
    });
    process.send('ready');
  `);
  const client = opened(t);
  const [unix, shm, tcp] = urls().map((url) => client.listen(url));
  client.respond('parent', (request) => `${request.text()} of parent`);
  client.subscribe('a');
  const claim = client.publisher('a').claim(100);
  const child = fork(program);
  const exit = once(child, 'exit');
  const said = async () => {
    const [message] = await Promise.race([once(child, 'message'), exit]);
    return message;
  };
  assert.equal(await said(), 'ready');
  for (const { url } of [unix, shm, tcp]) {
    child.send(url);
    assert.equal(await said(), 'child of parent');
  }
  // It has none of the sockets: what is closed here is free, though the child lives.
  const { url } = tcp;
  await tcp.close();
  const again = client.listen(url);
  child.send('end');
  assert.deepEqual((await exit)[0], 5);
  claim.commit();
  for (const server of [unix, shm, again]) await server.close();
});

test('import and require give the same package', async () => {
  const required = createRequire(import.meta.url)(packagePath);
  const imported = await import(path.join(packagePath, 'index.mjs'));
  for (const [name, value] of Object.entries(required)) assert.equal(imported[name], value, name);
  const client = required.open();
  assert.ok(client instanceof imported.Client);
  assert.throws(() => client.publish(''), imported.FastmqError);
  client.close();
});

/** Numbers that a seed decides. */
function random(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test('handles are collected in every order', async (t) => {
  const broker = opened(t);
  const server = broker.listen(urls()[0]);
  t.after(() => server.close());
  for (let seed = 1; seed <= 12; seed += 1) {
    const below = random(seed);
    const client = seed % 2 === 0
      ? fastmq.open() : await fastmq.connect(server.url, { polled: seed % 4 === 1 });
    const queue = client.queue();
    const publisher = client.publisher('a');
    const held = new Map(Object.entries({
      client, queue, publisher, subscription: client.subscribe('a', { queue }),
      // A callback lives, and so does the process, until somebody says that it need not.
      other: client.subscribe('b'), callback: client.subscribe('c', () => {}).unref(),
      responder: client.respond('r', (request) => request.payload).unref(),
      requester: client.requester(),
    }));
    client.publish('b', 'payload');
    const batch = await held.get('other').receive({ timeout: 20_000 });
    held.set('batch', batch).set('message', batch.at(0)).set('payload', batch.at(0).payload);
    held.set('claim', publisher.claim(100)).set('bytes', held.get('claim').bytes);
    held.set('asked', client.request('r', 'x').catch((error) => error));
    held.set('stream', client.requestStream('r', 'x')).set('wait', queue[Symbol.asyncIterator]());
    const uses = {
      client: (it) => it.publish('b', 'x'), queue: (it) => it.tryReceive(),
      publisher: (it) => it.publish('x'), subscription: (it) => it.tryReceive(10),
      other: (it) => it.tryReceive(), callback: (it) => it.statistics(),
      responder: (it) => it.queue.statistics(), requester: (it) => it.inFlight,
      batch: (it) => it.messages.map((message) => message.text()), message: (it) => it.reply('x'),
      payload: (it) => assert.equal(it.toString(), 'payload'), claim: (it) => it.commit(50),
      bytes: (it) => it.length > 0 && it.fill(7), asked: () => {}, stream: (it) => it.next().catch(() => {}),
      wait: (it) => it.return(),
    };
    while (held.size > 0) {
      const names = [...held.keys()];
      for (const name of [names[below(names.length)], names[below(names.length)]]) {
        if (below(4) === 0 && typeof held.get(name)?.close === 'function') held.get(name).close();
        held.delete(name);
      }
      globalThis.gc();
      if (below(2) === 0) await turn();
      for (const [name, it] of held) {
        try {
          uses[name](it);
        } catch (error) {
          assert.ok(error instanceof fastmq.FastmqError, `seed ${seed}, ${name}: ${error.stack}`);
        }
      }
    }
  }
});
