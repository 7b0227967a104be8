// The golden vectors that every language runs, and the words that this one shares with C.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fastmq, opened } from './support.mjs';

const root = new URL('../../', import.meta.url);
const read = (path) => readFileSync(new URL(path, root), 'utf8');

test('statuses have their frozen numbers and names', () => {
  for (const { number, c } of JSON.parse(read('tests/vectors/status.json')).statuses) {
    assert.equal(new fastmq.FastmqError(c).status, number, c);
  }
  const busy = new fastmq.FastmqError('FASTMQ_BUSY');
  assert.equal(busy.message, 'the responder has no room; try again later');
});

test('headers are encoded and found as everywhere', (t) => {
  const client = opened(t);
  const all = client.subscribe('a');
  const hex = (bytes) => Buffer.from(bytes).toString('hex');
  for (const { name, entries, lookups } of JSON.parse(read('tests/vectors/headers.json')).good) {
    const headers = entries.map((entry) => [entry.name, Buffer.from(entry.value, 'hex')]);
    client.publish('a', '', { headers });
    const message = all.tryReceive().at(0);
    assert.deepEqual(message.headers.map(([key, value]) => ({ name: key, value: hex(value) })),
      entries, name);
    for (const lookup of lookups) {
      const value = message.header(lookup.name);
      assert.equal(value === undefined ? null : hex(value), lookup.value, name);
    }
  }
});

test('constants are those of the C header', () => {
  const header = read('include/fastmq.h');
  for (const name of ['SUBJECT_JOINED', 'SUBJECT_LEFT', 'SUBJECT_STATS', 'SUBJECT_CONNECTED',
    'SUBJECT_DISCONNECTED', 'HEADER_SUBSCRIPTION', 'HEADER_CLIENT', 'HEADER_BROKEN']) {
    const [, value] = header.match(new RegExp(`#define FASTMQ_${name} "(.*)"`));
    assert.equal(fastmq[name], value);
  }
});

test('require and import give the same', async () => {
  const { createRequire } = await import('node:module');
  const { packagePath } = await import('./support.mjs');
  const required = createRequire(import.meta.url)(packagePath);
  assert.deepEqual(Object.keys(fastmq).filter((name) => name !== 'default').sort(),
    Object.keys(required).sort());
  for (const name of Object.keys(required)) assert.equal(fastmq[name], required[name]);
});

test('each function of C has a place in this language, or a reason', () => {
  const functions = read('ffi/symbols.txt').trim().split('\n');
  const covers = JSON.parse(read('bindings/node/covers.json'));
  const parts = [covers.functions, covers.elsewhere, covers.gaps];
  const named = parts.flatMap((part) => Object.keys(part));
  assert.deepEqual(named.sort(), functions.sort());
  assert.ok(Object.values(covers.gaps).every((why) => why.length > 0));
  const types = read('bindings/node/index.d.ts');
  const elsewhere = Object.entries(covers.elsewhere).map(([name, at]) => [name, at.name]);
  for (const [name, place] of [...Object.entries(covers.functions), ...elsewhere]) {
    const [outer, inner] = place.split('.');
    const pattern = inner === undefined
      ? new RegExp(`export (function|class|const) ${outer}\\b`)
      : new RegExp(`export (class|interface) ${outer}\\b[^]*?\\n  (readonly )?${inner}\\b`);
    if (inner !== 'message') assert.match(types, pattern, `${name}: ${place}`);
  }
});

test('each field of the options of C has its word, or a reason', () => {
  const header = read('include/fastmq.h');
  const types = read('bindings/node/index.d.ts');
  const { options } = JSON.parse(read('bindings/node/covers.json'));
  const others = {
    flags: null, struct_size: null, context: null, client: null, memory: 'memory',
    on_message: 'onMessage', subject: 'subject', token: 'token', headers: 'headers',
    credit_mode: null, is_manual: null, sockets_count: null,
  };
  for (const struct of ['options', 'connect_options', 'listen_options', 'queue_options',
    'requester_options', 'subscribe_options', 'many_options', 'outgoing']) {
    const [, body] = header.match(
      new RegExp(`typedef struct fastmq_${struct} \\{([^]*?)\\n\\} fastmq_${struct};`));
    for (const [, comment, field] of body.matchAll(/((?:\n {4}\/\/.*)*)\n {4}[^/\n]*?(\w+);/g)) {
      if (/reserved/i.test(comment) || others[field] === null) continue;
      if (options[`fastmq_${struct}.${field}`] !== undefined) continue;
      const word = others[field]
        ?? field.replace(/_ns$/, '').replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
      assert.match(types, new RegExp(`\\b${word}\\??[:(]`), `${struct}.${field}: ${word}`);
    }
  }
});
