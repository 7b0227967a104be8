// Requests: every promise settles once, with the answer or with why there is none.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fails, fastmq, opened, run, turn } from './support.mjs';

test('a request resolves to its answer', async (t) => {
  const client = opened(t);
  client.respond('echo', (request) => request.payload);
  client.respond('later', async (request) => {
    await turn();
    return `${request.text()} later`;
  });
  client.respond('none', () => {});
  client.respond('large', () => Buffer.alloc(500_000, 1));
  client.respond('by.hand', (request) => {
    request.reply('by hand', { headers: { Who: 'me' } });
  });
  assert.equal((await client.request('echo', 'äh')).text(), 'äh');
  assert.equal((await client.request('later', 'now')).text(), 'now later');
  assert.equal((await client.request('none')).size, 0);
  assert.equal((await client.request('large', 'x', { key: 'k' })).size, 500_000);
  const answer = await client.request('by.hand');
  assert.equal(answer.header('who').toString(), 'me');
  assert.equal(answer.code, 'FASTMQ_OK');
  assert.deepEqual(client.statistics().lateAnswers, 0);
});

test('a request that ends at once waits for none that is in flight', async (t) => {
  const client = opened(t);
  const silent = client.subscribe('silent');
  client.request('silent', '', { timeout: Infinity }).catch(() => {});
  while (silent.tryReceive() === null) await turn();
  for (let turns = 0; turns < 3; turns += 1) await turn();
  let code = null;
  client.request('nobody', '', { timeout: Infinity }).catch((error) => {
    code = error.code;
  });
  for (let turns = 0; turns < 3; turns += 1) await turn();
  assert.equal(code, 'FASTMQ_NO_RESPONDER');
});

test('what a responder throws is what the request rejects with', async (t) => {
  const client = opened(t);
  const errors = [];
  const onError = (error, message) => errors.push([error.message, message.subject]);
  client.respond('throws', { onError }, () => {
    throw new TypeError('a bug');
  });
  client.respond('rejects', { onError }, async () => {
    throw new fastmq.FastmqError('FASTMQ_NOT_FOUND', 'no such flight');
  });
  client.respond('wrong', { onError }, () => 7);
  client.respond('says', (request) => request.reply('busy today', { code: 'FASTMQ_BUSY' }));
  const bug = await fails(assert, 'FASTMQ_INTERNAL', () => client.request('throws'));
  assert.equal(bug.message, 'a bug');
  assert.equal(bug.status, 50);
  const missing = await fails(assert, 'FASTMQ_NOT_FOUND', () => client.request('rejects'));
  assert.equal(missing.message, 'no such flight');
  await fails(assert, 'FASTMQ_INVALID', () => client.request('wrong'));
  const busy = await fails(assert, 'FASTMQ_BUSY', () => client.request('says'));
  assert.equal(busy.reply.text(), 'busy today');
  assert.deepEqual(errors.slice(0, 2), [['a bug', 'throws'], ['no such flight', 'rejects']]);
  assert.equal(errors.length, 3);
});

test('a request that nobody answers rejects', async (t) => {
  const client = opened(t);
  await fails(assert, 'FASTMQ_NO_RESPONDER', () => client.request('nobody'));
  const silent = client.subscribe('silent');
  const late = await fails(assert, 'FASTMQ_TIMEOUT',
    () => client.request('silent', '', { timeout: 5 }));
  assert.ok(late instanceof fastmq.TimeoutError);
  assert.equal(late.name, 'TimeoutError');
  const request = client.request('silent', '', { timeout: Infinity });
  silent.unsubscribe();
  await fails(assert, 'FASTMQ_CANCELLED', () => request);
});

test('a signal ends a request', async (t) => {
  const client = opened(t);
  const silent = client.subscribe('silent');
  const controller = new AbortController();
  const reason = new Error('changed my mind');
  const request = client.request('silent', '', { signal: controller.signal });
  controller.abort(reason);
  const error = await fails(assert, 'FASTMQ_CANCELLED', () => request);
  assert.ok(error instanceof fastmq.AbortError);
  assert.equal(error.name, 'AbortError');
  assert.equal(error.cause, reason);
  await fails(assert, 'FASTMQ_CANCELLED',
    () => client.request('silent', '', { signal: controller.signal }));
  // The answer that comes nevertheless finds nobody.
  const batch = await silent.receive({ timeout: 10_000 });
  assert.equal(batch.length, 1);
  try {
    batch.at(0).reply('too late');
  } catch (late) {
    assert.equal(late.code, 'FASTMQ_NOT_FOUND');
  }
  await turn();
  assert.equal(client.statistics().lateAnswers <= 1, true);
});

test('thousands of requests in flight find their answers', async (t) => {
  const client = opened(t);
  client.respond('double', (request) => String(Number(request.text()) * 2));
  const numbers = Array.from({ length: 20_000 }, (_, index) => index);
  const answers = await Promise.all(numbers.map((n) => client.request('double', String(n))));
  assert.ok(answers.every((answer, index) => Number(answer.text()) === index * 2));
  const requester = client.requester({ subject: 'double', inFlightMax: 100 });
  const batch = await requester.requestBatch(numbers.map(String));
  assert.ok(batch.every((answer, index) => Number(answer.text()) === index * 2));
  assert.equal(requester.inFlight, 0);
  const large = await requester.requestBatch(['1', ' '.repeat(5000) + '2', '3']);
  assert.deepEqual(large.map((answer) => answer.text()), ['2', '4', '6']);
  assert.equal((await requester.requestTo('double', '8')).text(), '16');
  assert.deepEqual(await requester.requestBatch([]), []);
});

test('a window that is full says so', async (t) => {
  const client = opened(t);
  const silent = client.subscribe('silent');
  const requester = client.requester({ subject: 'silent', inFlightMax: 2 });
  const open = [requester.request('1'), requester.request('2')];
  await fails(assert, 'FASTMQ_AGAIN', () => requester.request('3'));
  for (const request of silent.tryReceive()) request.reply(request.text());
  assert.deepEqual((await Promise.all(open)).map((answer) => answer.text()), ['1', '2']);
  const last = requester.request('4');
  requester.close();
  requester.close();
  await fails(assert, 'FASTMQ_CANCELLED', () => last);
  await fails(assert, 'FASTMQ_MISUSE', () => requester.request('5'));
});

test('one request gathers the answers of many', async (t) => {
  const client = opened(t);
  for (const name of ['a', 'b', 'c']) client.respond('who', () => name);
  const all = await client.requestMany('who');
  assert.deepEqual(all.map((answer) => answer.text()).sort(), ['a', 'b', 'c']);
  assert.equal(all.code, 'FASTMQ_OK');
  assert.equal(new Set(all.map((answer) => answer.subscriptionId)).size, 3);
  assert.equal((await client.requestMany('who', '', { answersMax: 2 })).length, 2);
  client.subscribe('who').queue.ref();
  const silent = client.subscribe('who');
  const some = await client.requestMany('who', '', { timeout: 50 });
  assert.equal(some.length, 3);
  assert.ok(['FASTMQ_TIMEOUT', 'FASTMQ_END'].includes(some.code));
  silent.unsubscribe();
  await fails(assert, 'FASTMQ_NO_RESPONDER', () => client.requestMany('nobody'));
});

test('a generator streams its replies no faster than they are taken', async (t) => {
  const client = opened(t);
  let made = 0;
  client.respond('count', async function* count(request) {
    for (let index = 0; index < Number(request.text()); index += 1) {
      made += 1;
      yield String(index);
    }
  });
  const got = [];
  for await (const reply of client.requestStream('count', '1000', { credit: 8 })) {
    got.push(Number(reply.text()));
    assert.ok(made - got.length <= 8 + 2, `${made} made, ${got.length} taken`);
    if (got.length % 100 === 0) await turn();
  }
  assert.deepEqual(got, Array.from({ length: 1000 }, (_, index) => index));
});

test('a stream that is left ends its generator', async (t) => {
  const client = opened(t);
  let isEnded;
  const ended = new Promise((resolve) => {
    isEnded = resolve;
  });
  client.respond('endless', async function* endless() {
    try {
      for (let index = 0; ; index += 1) yield String(index);
    } finally {
      isEnded();
    }
  });
  for await (const reply of client.requestStream('endless')) {
    if (reply.text() === '100') break;
  }
  await ended;
  const controller = new AbortController();
  const aborted = client.requestStream('endless', '', { signal: controller.signal });
  assert.equal((await aborted.next()).value.text(), '0');
  controller.abort();
  await fails(assert, 'FASTMQ_CANCELLED', async () => {
    for await (const reply of aborted) assert.ok(reply.size > 0);
  });
});

test('a stream ends as its responder says', async (t) => {
  const client = opened(t);
  client.respond('breaks', { onError: () => {} }, async function* breaks() {
    yield '1';
    throw new fastmq.FastmqError('FASTMQ_UNAVAILABLE');
  });
  const replies = [];
  await fails(assert, 'FASTMQ_UNAVAILABLE', async () => {
    for await (const reply of client.requestStream('breaks')) replies.push(reply.text());
  });
  assert.deepEqual(replies, ['1']);
  client.subscribe('by.hand', async (request) => {
    const stream = client.replyStream(request);
    await fails(assert, 'FASTMQ_EXISTS', () => client.replyStream(request));
    assert.ok(stream.credit > 0);
    await stream.send('a', { headers: { N: '1' } });
    assert.equal(stream.trySend('b'), true);
    stream.end();
    await fails(assert, 'FASTMQ_MISUSE', () => stream.send('c'));
    stream.close();
    stream.close();
  });
  const all = [];
  for await (const reply of client.requestStream('by.hand')) all.push(reply);
  assert.deepEqual(all.map((reply) => reply.text()), ['a', 'b']);
  assert.equal(all[0].header('n').toString(), '1');
  // A plain answer is a stream of one; a plain request takes no stream.
  client.respond('plain', () => 'x');
  const one = [];
  for await (const reply of client.requestStream('plain')) one.push(reply.text());
  assert.deepEqual(one, ['x']);
  await fails(assert, 'FASTMQ_UNSUPPORTED', () => client.request('breaks'));
});

test('streams of several responders come together', async (t) => {
  const client = opened(t);
  for (const name of ['a', 'b']) {
    client.respond('many', async function* many() {
      for (let index = 0; index < 200; index += 1) yield `${name}${index}`;
    });
  }
  const got = { a: 0, b: 0 };
  const options = { answersMax: Infinity, credit: 4 };
  for await (const reply of client.requestStream('many', '', options)) {
    const text = reply.text();
    assert.equal(text, `${text[0]}${got[text[0]]}`);
    got[text[0]] += 1;
  }
  assert.deepEqual(got, { a: 200, b: 200 });
});

test('closing the client settles every request', async (t) => {
  const client = opened(t);
  client.subscribe('silent').queue.ref();
  const silent = client.subscribe('silent');
  const requester = client.requester();
  const open = [client.request('silent'), requester.requestTo('silent'),
    client.requestMany('silent'), client.requestStream('silent').next()];
  client.close();
  for (const request of open) {
    const error = await request.catch((reason) => reason);
    assert.ok(['FASTMQ_CANCELLED', 'FASTMQ_CLOSED'].includes(error.code), String(error));
  }
  assert.equal(silent.id > 0, true);
  await fails(assert, 'FASTMQ_CLOSED', () => client.request('silent'));
});

test('a wrong reply is what the asker hears of', async (t) => {
  const client = opened(t);
  client.respond('type', (request) => request.reply({}));
  client.respond('option', (request) => request.reply('x', { cod: 'FASTMQ_BUSY' }));
  client.respond('stream', (request) => client.replyStream(request));
  await fails(assert, 'FASTMQ_INVALID', () => client.request('type'));
  await fails(assert, 'FASTMQ_INVALID', () => client.request('option'));
  await fails(assert, 'FASTMQ_UNSUPPORTED', () => client.request('stream'));
});

test('a batch of requests ends with its requester', async (t) => {
  const client = opened(t);
  client.respond('never', () => new Promise(() => {}));
  const requester = client.requester({ subject: 'never', inFlightMax: 2 });
  const all = [requester.request('1'), requester.request('2'), requester.requestBatch(['3', '4'])];
  await turn();
  requester.close();
  for (const promise of all) await fails(assert, 'FASTMQ_CANCELLED', () => promise);
});

test('a batch of requests that was refused rejects once', async () => {
  const { code, out, err } = await run(`
    const client = fastmq.open();
    client.respond('never', () => new Promise(() => {}));
    const requester = client.requester({ subject: 'never' });
    requester.requestBatch(['a', Buffer.alloc(2 ** 21)]).catch((error) => {
      console.log(error.code);
      requester.close();
      client.close();
    });
  `);
  assert.deepEqual([code, out], [0, 'FASTMQ_TOO_LARGE'], err);
});

test('shorter requests put off the time-out of none before them', async (t) => {
  const client = opened(t);
  client.respond('never', () => new Promise(() => {}));
  let isOver = false;
  const first = client.request('never', '', { timeout: 200 }).catch(() => {
    isOver = true;
  });
  const others = [];
  for (let timeout = 199; timeout > 100 && !isOver; timeout -= 0.5) {
    others.push(client.request('never', '', { timeout }).catch(() => {}));
    await new Promise((resolve) => {
      setTimeout(resolve, 5);
    });
  }
  assert.ok(isOver);
  await Promise.all([first, ...others]);
});
