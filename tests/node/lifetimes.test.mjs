/* node: --expose-gc */
// Handles: made and dropped in any order, any number of times, without a leak.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { connected, fastmq, opened, packagePath, run, take, turn } from './support.mjs';

const descriptors = () => readdirSync('/proc/self/fd').length;

async function collect() {
  for (let round = 0; round < 4; round += 1) {
    globalThis.gc();
    await turn();
  }
}

test('garbage collection is there for these tests', () => {
  assert.equal(typeof globalThis.gc, 'function');
});

test('ten thousand brokers leave nothing behind', async () => {
  const cycle = () => {
    const client = fastmq.open();
    const all = client.subscribe('a');
    client.publisher('a').publish('x');
    assert.equal(all.tryReceive().length, 1);
    client.close();
  };
  for (let round = 0; round < 500; round += 1) cycle();
  await collect();
  const before = { memory: process.memoryUsage().rss, descriptors: descriptors() };
  for (let round = 0; round < 10_000; round += 1) {
    cycle();
    if (round % 500 === 0) await collect();
  }
  await collect();
  const grown = process.memoryUsage().rss - before.memory;
  // One kilobyte a round would be ten megabytes more than what the collector leaves lying.
  assert.ok(grown < 24 << 20, `${grown} bytes`);
  assert.equal(descriptors(), before.descriptors);
});

test('handles that are dropped without being closed are collected', async (t) => {
  const client = opened(t);
  const before = client.statistics();
  for (let round = 0; round < 2000; round += 1) {
    client.subscribe('a');
    client.queue();
    client.publisher('b').claim(100);
    client.requester({ subject: 'a' });
  }
  await collect();
  for (let turns = 0; turns < 100 && client.statistics().queues > before.queues; turns += 1) {
    await collect();
  }
  assert.equal(client.statistics().subscriptions, before.subscriptions);
  assert.equal(client.statistics().queues, before.queues);
});

test('a client that is dropped without being closed warns', async () => {
  const { code, err } = await run(`
    const closed = fastmq.open();
    closed.close();
    (() => fastmq.open())();
    setImmediate(() => {
      gc();
      setImmediate(() => process.exit(0));
    });
  `, '--expose-gc');
  assert.equal(code, 0);
  assert.equal(err.match(/FastmqWarning: a client was collected/g)?.length, 1, err);
});

test('a subscription lives as long as its queue, its callback, or who waits for it', async (t) => {
  const client = opened(t);
  const queue = client.queue();
  client.subscribe('a', { queue });
  const seen = [];
  client.subscribe('a', (message) => {
    seen.push(message.text());
  });
  const received = client.subscribe('a').receive();
  await collect();
  client.publish('a', '1');
  assert.equal((await received).at(0).text(), '1');
  assert.deepEqual(await take(queue, 1), ['1']);
  while (seen.length === 0) await turn();
  assert.deepEqual(seen, ['1']);
});

test('claims, messages and batches outlive what they came from', async (t) => {
  const client = opened(t);
  const kept = (() => {
    const all = client.subscribe('a');
    const publisher = client.publisher('a');
    publisher.publish('kept');
    const batch = all.tryReceive();
    return { bytes: publisher.claim(64).bytes, batch, payload: batch.at(0).payload };
  })();
  await collect();
  kept.bytes.fill(1);
  assert.equal(kept.bytes[63], 1);
  assert.equal(kept.payload.toString(), 'kept');
  assert.equal(kept.batch.at(0).subject, 'a');
});

test('connections that are closed give their descriptors back', async (t) => {
  const broker = opened(t);
  const server = broker.listen('tcp://127.0.0.1:0');
  t.after(() => server.close());
  const cycle = async (polled) => {
    const client = await fastmq.connect(server.url, { polled });
    const all = client.subscribe('a');
    client.publish('a', 'x');
    assert.deepEqual(await take(all, 1), ['x']);
    client.close();
  };
  for (let round = 0; round < 5; round += 1) await cycle(round % 2 === 0);
  await collect();
  const before = descriptors();
  for (let round = 0; round < 200; round += 1) await cycle(round % 2 === 0);
  await collect();
  assert.ok(descriptors() <= before + 4, `${descriptors()} of ${before}`);
  await connected(t, server.url);
});

test('a server that nobody holds serves until its client is closed', async () => {
  const { code, out, err } = await run(`
    const { setImmediate: turn } = require('node:timers/promises');
    const broker = fastmq.open();
    const url = (() => broker.listen('tcp://127.0.0.1:0').url)();
    (async () => {
      for (let round = 0; round < 10; round += 1) { gc(); await turn(); }
      (await fastmq.connect(url)).close();
      broker.close();
      await fastmq.connect(url).catch((error) => console.log(error.code));
    })();
  `, '--expose-gc');
  assert.deepEqual([code, out], [0, 'FASTMQ_UNAVAILABLE'], err);
});

test('a thread that loads the package twice has two that work', async () => {
  const { code, out, err } = await run(`
    const load = () => {
      for (const name of Object.keys(require.cache)) delete require.cache[name];
      return require(${JSON.stringify(path.join(packagePath, 'index.cjs'))});
    };
    const { setImmediate: turn } = require('node:timers/promises');
    const both = [fastmq, load()].map((each) => {
      const client = each.open();
      return [client, client.subscribe('a')];
    });
    (() => load().open().close())();
    (async () => {
      for (let round = 0; round < 10; round += 1) { gc(); await turn(); }
      both[1][0].publish('a', '2');
      both[0][0].publish('a', '1');
      for (const [client, all] of both) {
        console.log(all.tryReceive().at(0).text());
        client.close();
      }
    })();
  `, '--expose-gc');
  assert.deepEqual([code, out], [0, '1\n2'], err);
});

test('two copies of the package are two libraries', async () => {
  const { code, out, err } = await run(`
    const { cpSync, mkdtempSync, rmSync } = require('node:fs');
    const path = require('node:path');
    const from = ${JSON.stringify(packagePath)};
    const to = mkdtempSync(path.join(require('node:os').tmpdir(), 'fastmq-copy-'));
    for (const part of ['index.cjs', 'package.json', 'lib', 'prebuilt']) {
      cpSync(path.join(from, part), path.join(to, part), { recursive: true });
    }
    const other = require(to);
    rmSync(to, { recursive: true });
    const url = 'unix:' + to + '.sock';
    const broker = fastmq.open();
    const server = broker.listen(url);
    broker.respond('a', (request) => request.text() + ' answered');
    other.connect(url).then(async (client) => {
      console.log((await client.request('a', 'asked')).text());
      client.close();
      await server.close();
      broker.close();
    });
  `);
  assert.deepEqual([code, out], [0, 'asked answered'], err);
});
