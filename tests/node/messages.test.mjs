// Messages: what is sent is what is received, and what queues do with it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fails, fastmq, opened, take } from './support.mjs';

test('a payload of any kind arrives as its bytes', (t) => {
  const client = opened(t);
  const all = client.subscribe('>');
  const bytes = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]);
  const shared = new SharedArrayBuffer(8);
  new Uint8Array(shared).set(bytes);
  const kinds = [
    [bytes, bytes], [Buffer.from(bytes), bytes], [bytes.buffer, bytes], [shared, bytes],
    [new Uint8Array(shared), bytes], [new DataView(bytes.buffer, 2, 3), bytes.subarray(2, 5)],
    [new Uint16Array(bytes.buffer), bytes], [new Float64Array(bytes.buffer), bytes],
    [bytes.subarray(3), bytes.subarray(3)], ['', []], [undefined, []], [null, []],
    ['äöü €𐍈', Buffer.from('äöü €𐍈')],
    ['a'.repeat(100), Buffer.from('a'.repeat(100))],
    [Buffer.alloc(5000, 7), Buffer.alloc(5000, 7)], ['b'.repeat(70_000), Buffer.alloc(70_000, 'b')],
    [Buffer.alloc(900_000, 9), Buffer.alloc(900_000, 9)],
  ];
  const publisher = client.publisher('by.handle');
  for (const [payload, expected] of kinds) {
    client.publish('by.subject', payload);
    publisher.publish(payload);
    client.publish('with.options', payload, { key: 'k' });
    const subjects = [];
    while (subjects.length < 3) {
      for (const message of all.tryReceive()) {
        subjects.push(message.subject);
        assert.deepEqual([...message.payload], [...Buffer.from(expected)]);
        assert.equal(message.size, expected.length);
      }
    }
    assert.deepEqual(subjects.sort(), ['by.handle', 'by.subject', 'with.options']);
  }
});

test('every field of a message arrives', (t) => {
  const client = opened(t, { timestamps: 'clock' });
  const queue = client.queue();
  const subscription = client.subscribe('a.*', { queue, tag: Number.MAX_SAFE_INTEGER });
  const before = BigInt(Date.now() - 1000) * 1_000_000n;
  client.publish('a.ü', 'x', {
    replyTo: 'b.c', key: 'key', headers: [['N', 'one'], ['n', Buffer.from([255])]], ttl: 10_000,
  });
  const batch = queue.tryReceive();
  const message = batch.at(0);
  assert.equal(message.subject, 'a.ü');
  assert.equal(message.text(), 'x');
  assert.equal(message.replyTo, 'b.c');
  assert.equal(message.key.toString(), 'key');
  assert.deepEqual(message.headers, [['N', Buffer.from('one')], ['n', Buffer.from([255])]]);
  assert.equal(message.header('N').toString(), 'one');
  assert.equal(message.header('missing'), undefined);
  assert.equal(message.tag, Number.MAX_SAFE_INTEGER);
  assert.equal(message.subscriptionId, subscription.id);
  assert.equal(message.sequence, 0);
  assert.equal(message.publisher, 0n);
  assert.equal(message.deliveryCount, 1);
  assert.equal(message.lostBefore, 0);
  assert.equal(message.isRequest, false);
  assert.equal(message.token, 0n);
  assert.ok(message.timestampNs > before);
  assert.ok(batch.timeNs >= message.timestampNs);
  assert.deepEqual(subscription.statistics(), { id: subscription.id, delivered: 1, dropped: 0 });
});

test('headers that were made once serve many messages', (t) => {
  const client = opened(t);
  const all = client.subscribe('>');
  const headers = new fastmq.Headers({ Trace: '1' }).add('Trace', '2');
  client.publish('a', '', { headers });
  headers.clear();
  client.publish('a', '', { headers });
  const [first, second] = all.tryReceive();
  assert.deepEqual(first.headers.map(([name, value]) => name + value), ['Trace1', 'Trace2']);
  assert.deepEqual(second.headers, []);
  assert.deepEqual([...new fastmq.Headers(new fastmq.Headers([['a', 'b']]))],
    [['a', Buffer.from('b')]]);
});

test('messages of a publisher are numbered, also in batches', (t) => {
  const client = opened(t);
  const all = client.subscribe('>');
  const publisher = client.publisher('p');
  publisher.publish('1');
  assert.equal(publisher.publishBatch(['2', Buffer.from('3'), 'é'.repeat(3000), '5']), 4);
  assert.equal(publisher.publishBatch(new Set(['6'])), 1);
  assert.equal(publisher.publishColumns(Buffer.from('78'), Uint32Array.from([0, 1, 2])), 2);
  const messages = all.tryReceive().messages;
  assert.deepEqual(messages.map((message) => message.sequence), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.equal(messages[3].text(), 'é'.repeat(3000));
  assert.deepEqual(messages.map((message) => message.text()[0]).join(''), '123é5678');
  assert.equal(new Set(messages.map((message) => message.publisher)).size, 1);
  const two = [{ subject: 'a', payload: '1' }, { subject: 'b', key: 'k' }];
  assert.equal(client.publishBatch(two), 2);
});

test('thousands of messages come in order, whatever their sizes', async (t) => {
  const client = opened(t);
  const all = client.subscribe('s');
  const publisher = client.publisher('s');
  const sizes = Array.from({ length: 20_000 }, (_, index) => (index * 7919) % 1000);
  const payloads = sizes.map((size, index) => Buffer.alloc(size, index));
  let sent = 0;
  let got = 0;
  while (got < sizes.length) {
    sent += publisher.publishBatch(payloads.slice(sent, sent + 3000));
    for (const message of await all.receive({ max: 0 })) {
      assert.equal(message.size, sizes[got]);
      if (message.size > 0) assert.equal(message.payload[0], got % 256);
      got += 1;
    }
  }
});

test('a message stays readable when all is closed', (t) => {
  const client = opened(t);
  const all = client.subscribe('>');
  client.publish('kept.subject', 'kept');
  const batch = all.tryReceive();
  const message = batch.at(-1);
  const view = message.payload;
  batch.close();
  client.publish('kept.subject', 'other');
  all.tryReceive().close();
  client.close();
  assert.equal(view.toString(), 'kept');
  assert.equal(message.subject, 'kept.subject');
  assert.equal(batch.at(0).text(), 'kept');
  assert.equal(batch.at(1), undefined);
  batch.close();
});

test('policies say what a full queue does', (t) => {
  const client = opened(t);
  const full = (policy) => {
    const subscription = client.subscribe(`full.${policy}`, {
      queue: client.queue({ policy, capacity: 4096 }),
    });
    const publisher = client.publisher(`full.${policy}`);
    let accepted = 0;
    for (let index = 0; index < 1000; index += 1) {
      if (!publisher.tryPublish(String(index).padStart(100))) break;
      accepted += 1;
    }
    return { accepted, subscription };
  };
  const backpressure = full('backpressure');
  assert.ok(backpressure.accepted < 1000);
  assert.equal(backpressure.subscription.tryReceive(1).at(0).text().trim(), '0');
  const oldest = full('dropOldest');
  assert.equal(oldest.accepted, 1000);
  const first = oldest.subscription.tryReceive(1).at(0);
  assert.equal(first.lostBefore, Number(first.text()));
  assert.ok(first.lostBefore > 0);
  const newest = full('dropNewest');
  assert.equal(newest.accepted, 1000);
  assert.equal(newest.subscription.tryReceive(1).at(0).text().trim(), '0');
  assert.ok(newest.subscription.queue.statistics().dropped > 0);
  const latest = full('latest');
  assert.equal(latest.subscription.queue.statistics().replaced, 999);
  assert.equal(latest.subscription.tryReceive().at(0).text().trim(), '999');
});

test('a last value comes first to whoever asks for it', async (t) => {
  const client = opened(t);
  client.publish('temperature.kitchen', '21', { keepLast: true });
  client.publish('temperature.kitchen', '99');
  const late = client.subscribe('temperature.*', { replayLast: true });
  assert.equal(late.tryReceive().at(0).text(), '21');
  assert.equal(client.statistics().lastValues, 1);
  client.forgetLast('temperature.kitchen');
  await fails(assert, 'FASTMQ_NOT_FOUND', () => client.forgetLast('temperature.kitchen'));
});

test('members of a group share its messages, those of a key with one member', (t) => {
  const client = opened(t);
  const members = [1, 2].map(() => client.subscribe('work', {
    group: 'g', groupMode: 'keyShared', weight: 1,
  }));
  for (let index = 0; index < 200; index += 1) {
    client.publish('work', String(index), { key: `key ${index % 20}` });
  }
  const keys = members.map((member) => {
    const batch = member.tryReceive(0);
    const last = new Map();
    for (const message of batch) {
      const key = message.key.toString();
      assert.ok((last.get(key) ?? -1) < Number(message.text()), 'in order');
      last.set(key, Number(message.text()));
    }
    return last;
  });
  assert.equal(keys[0].size + keys[1].size, 20);
  assert.ok(keys.every((of) => of.size > 0));
});

test('a key stays with its member until the batch with its messages is closed', async (t) => {
  const client = opened(t);
  const options = { group: 'g', groupMode: 'keyShared' };
  const first = client.subscribe('work', options);
  const keys = Array.from({ length: 64 }, (_, index) => `key ${index}`);
  const publishAll = () => keys.filter((key) => client.tryPublish('work', '', { key })).length;
  assert.equal(publishAll(), 64);
  // The messages of one writer come in two batches, as it gets a lane of its own meanwhile.
  let batch = first.tryReceive(0);
  for (let got = batch.length; got < 64; got += batch.length) batch = first.tryReceive(0);
  client.subscribe('work', options);
  // Half of the keys move to the new member, which they do when the batch is closed.
  const before = publishAll();
  assert.ok(before < 64, `${before}`);
  batch.close();
  assert.equal(publishAll(), 64);
});

test('who comes and goes is told', async (t) => {
  const client = opened(t);
  const joined = client.subscribe(`${fastmq.SUBJECT_JOINED}.room.>`);
  const left = client.subscribe(`${fastmq.SUBJECT_LEFT}.room.>`);
  const player = client.subscribe('room.7', { group: 'players' });
  const came = joined.tryReceive().at(0);
  assert.equal(came.text(), 'room.7');
  assert.equal(came.key.toString(), 'players');
  assert.equal(Number(came.header(fastmq.HEADER_SUBSCRIPTION)), player.id);
  player.unsubscribe();
  assert.deepEqual(await take(left, 1), ['room.7']);
});

test('a claim is written in place and its bytes are taken away', async (t) => {
  const client = opened(t);
  const all = client.subscribe('c');
  const publisher = client.publisher('c');
  for (const size of [1, 8, 5000, 100_000, 0]) {
    const claim = publisher.claim(size);
    const { bytes } = claim;
    assert.equal(bytes.length, size);
    assert.ok(bytes.every((byte) => byte === 0));
    bytes.fill(size % 251);
    await fails(assert, 'FASTMQ_MISUSE', () => publisher.claim(1));
    if (size > 0) await fails(assert, 'FASTMQ_MISUSE', () => publisher.publish('meanwhile'));
    claim.commit();
    assert.equal(bytes.length, 0);
    assert.equal(claim.isOpen, false);
    await fails(assert, 'FASTMQ_MISUSE', () => claim.commit());
    const { payload } = all.tryReceive().at(0);
    assert.deepEqual(payload, Buffer.alloc(size, size % 251));
  }
  const part = publisher.claim(10);
  part.bytes.write('0123456789');
  part.commit(4);
  assert.deepEqual(await take(all, 1), ['0123']);
  const given = publisher.claim(10);
  const { bytes } = given;
  given.abandon();
  given.abandon();
  assert.equal(bytes.length, 0);
  const open = publisher.claim(10).bytes;
  publisher.close();
  assert.equal(open.length, 0);
  assert.equal(all.tryReceive(), null);
});

test('statistics have the words of C', (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  client.publish('a', '12345');
  const figures = client.statistics();
  assert.equal(figures.published, 1);
  assert.equal(figures.subscriptions, 1);
  assert.ok(Object.values(figures).every(Number.isInteger));
  assert.equal(all.queue.statistics().pending, 1);
  assert.ok(all.queue.statistics().pendingBytes >= 5);
});

test('a memory cap refuses what is beyond it', async (t) => {
  const client = opened(t, { memoryMax: 65_536 });
  client.subscribe('a').queue.ref();
  const keep = client.subscribe('a');
  await fails(assert, 'FASTMQ_NO_SPACE', () => {
    for (let index = 0; index < 1000; index += 1) client.publish('a', Buffer.alloc(1000));
  });
  keep.close();
});
