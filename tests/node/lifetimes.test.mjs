/* node: --expose-gc */
// Handles: made and dropped in any order, any number of times, without a leak.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fails, fastmq, opened, packagePath, run, take, turn, urls } from './support.mjs';

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

/** What a process has: bytes of memory, and how many descriptors, threads and handles of Node's. */
function possessions() {
  return {
    memory: process.memoryUsage().rss,
    descriptors: descriptors(),
    threads: readdirSync('/proc/self/task').length,
    resources: process.getActiveResourcesInfo().length,
  };
}

/** Runs `cycle` ten thousand times; what the process has more than after the first thousand. */
async function tenThousand(cycle) {
  for (let round = 0; round < 1000; round += 1) await cycle(round);
  await collect();
  const before = possessions();
  for (let round = 0; round < 10_000; round += 1) {
    await cycle(round);
    // What was collected is freed when the event loop has its turn.
    if (round % 100 === 0) await turn();
  }
  await collect();
  const after = possessions();
  return Object.fromEntries(Object.keys(before).map((name) => [name, after[name] - before[name]]));
}

test('ten thousand brokers leave nothing behind', async () => {
  const grown = await tenThousand((round) => {
    const client = fastmq.open();
    const queue = client.queue();
    client.subscribe('a', { queue });
    const publisher = client.publisher('a');
    publisher.publish('x');
    assert.equal(queue.tryReceive().length, 1);
    // To close the client is to close what it has.
    if (round % 2 === 0) for (const handle of [publisher, queue]) handle.close();
    client.close();
  });
  // A kilobyte and a half a round; V8 alone takes a third of that for itself.
  assert.ok(grown.memory < 16 << 20, `${grown.memory} bytes`);
  assert.deepEqual([grown.descriptors, grown.threads, grown.resources], [0, 0, 0]);
});

test('ten thousand clients of a server leave nothing behind', async (t) => {
  const broker = opened(t);
  const server = broker.listen(urls()[0]);
  t.after(() => server.close());
  const grown = await tenThousand(async (round) => {
    const client = await fastmq.connect(server.url, { polled: round % 2 === 0 });
    if (round % 10 === 0) {
      const all = client.subscribe('a');
      client.publisher('a').publish('x');
      assert.deepEqual(await take(all, 1), ['x']);
    }
    client.close();
  });
  assert.ok(grown.memory < 16 << 20, `${grown.memory} bytes`);
  // The server may not have heard yet that the last ones have gone.
  assert.ok(grown.descriptors <= 4, `${grown.descriptors} descriptors`);
  assert.ok(grown.threads <= 1, `${grown.threads} threads`);
  assert.equal(grown.resources, 0);
  assert.equal(broker.statistics().subscriptions, 0);
});

test('what is closed holds no memory, whoever still holds it', async () => {
  const held = [];
  const round = () => {
    const client = fastmq.open();
    const subscription = client.subscribe('a');
    const publisher = client.publisher('a');
    publisher.publish('x');
    subscription.tryReceive();
    const requester = client.requester({ subject: 'a' });
    client.close();
    held.push(client, subscription, publisher, requester);
  };
  for (let warm = 0; warm < 100; warm += 1) round();
  await collect();
  const before = process.memoryUsage().rss;
  for (let index = 0; index < 2000; index += 1) round();
  await collect();
  // Such a broker is 70 KB while it is open.
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < 32 << 20, `${grown} bytes`);
  const [client, subscription, publisher, requester] = held;
  assert.equal(client.statistics().published, 1);
  await fails(assert, 'FASTMQ_CLOSED', () => subscription.receive());
  await fails(assert, 'FASTMQ_CLOSED', () => publisher.publish('x'));
  await fails(assert, 'FASTMQ_CLOSED', () => requester.request('x'));
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
