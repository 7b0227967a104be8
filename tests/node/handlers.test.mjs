// Handlers: how many calls of them are under way, and what waits for them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fails, opened, turn } from './support.mjs';

/** A promise and what settles it. */
function deferred() {
  const it = {};
  it.promise = new Promise((resolve) => {
    it.resolve = resolve;
  });
  return it;
}

test('a slow answer holds up none of those behind it', async (t) => {
  const client = opened(t);
  const slow = deferred();
  client.respond('r', (request) => (request.text() === 'slow' ? slow.promise : request.payload));
  client.respond('stream', async function* stream() {
    yield '1';
    await slow.promise;
    yield '2';
  });
  const first = client.request('r', 'slow');
  const replies = client.requestStream('stream');
  assert.equal((await replies.next()).value.text(), '1');
  for (let index = 0; index < 3; index += 1) {
    assert.equal((await client.request('r', String(index))).text(), String(index));
    for await (const reply of client.requestStream('stream')) {
      assert.equal(reply.text(), '1');
      break;
    }
  }
  slow.resolve('at last');
  assert.equal((await first).text(), 'at last');
  assert.equal((await replies.next()).value.text(), '2');
});

test('a responder has no more under way than it says, and its queue is the rest', async (t) => {
  const client = opened(t, { queueCapacity: 4096 });
  const waiting = [];
  let calls = 0;
  const handler = () => {
    calls += 1;
    const later = deferred();
    waiting.push(later);
    return later.promise;
  };
  const responder = client.respond('r', { max: 3 }, handler);
  const settled = [];
  let accepted = 0;
  let full = null;
  while (full === null) {
    const index = settled.length;
    const request = client.request('r', Buffer.alloc(100));
    settled.push(request.then((answer) => answer.text(), (error) => {
      full ??= error.code;
      return `refused ${index}`;
    }));
    await turn();
    accepted = settled.length - 1;
  }
  assert.equal(calls, 3);
  assert.equal(full, 'FASTMQ_BUSY');
  // The last batch, of one request, is open.
  assert.equal(responder.queue.statistics().pending, accepted - 3 + 1);
  while (calls < accepted || waiting.length > 0) {
    assert.ok(waiting.length <= 3);
    waiting.shift()?.resolve('yes');
    await turn();
  }
  const answers = await Promise.all(settled);
  assert.deepEqual(answers, [...Array(accepted).fill('yes'), `refused ${accepted}`]);
});

test('a member of a key-shared group handles one batch after the other', async (t) => {
  const client = opened(t);
  const waiting = [];
  client.respond('k', { group: 'g', groupMode: 'keyShared' }, (request) => {
    const later = deferred();
    waiting.push([request.text(), later]);
    return later.promise;
  });
  const ask = (text) => client.request('k', text, { key: 'same' });
  const first = ask('1');
  while (waiting.length === 0) await turn();
  const second = ask('2');
  for (let turns = 0; turns < 5; turns += 1) await turn();
  assert.deepEqual(waiting.map(([text]) => text), ['1']);
  waiting[0][1].resolve('one');
  assert.equal((await first).text(), 'one');
  while (waiting.length === 1) await turn();
  waiting[1][1].resolve('two');
  assert.equal((await second).text(), 'two');
});

test('a drain waits for handlers that are under way', async (t) => {
  const client = opened(t);
  const slow = deferred();
  let calls = 0;
  client.respond('r', () => {
    calls += 1;
    return slow.promise;
  });
  const request = client.request('r');
  while (calls === 0) await turn();
  const late = await fails(assert, 'FASTMQ_TIMEOUT', () => client.drain({ timeout: 20 }));
  assert.match(late.message, /settled/);
  let isDrained = false;
  const drained = client.drain().then(() => {
    isDrained = true;
  });
  for (let turns = 0; turns < 5; turns += 1) await turn();
  assert.equal(isDrained, false);
  slow.resolve('in the end');
  assert.equal((await request).text(), 'in the end');
  await drained;
});
