// What the tests share: the package, brokers that are closed behind a test, child processes.

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

// The stage points it at an installed copy.
const here = path.dirname(fileURLToPath(import.meta.url));
const from = process.env.FASTMQ_NODE ?? path.join(here, '../../bindings/node');
export const packagePath = path.resolve(from);
export const fastmq = await import(path.join(packagePath, 'index.mjs'));

/** A broker that is closed when the test ends. */
export function opened(t, options) {
  const client = fastmq.open(options);
  t.after(() => client.close());
  return client;
}

/** A client of a server that is closed when the test ends. */
export async function connected(t, url, options) {
  const client = await fastmq.connect(url, options);
  t.after(() => client.close());
  return client;
}

/** The error that `body` throws or rejects with has this code. */
export async function fails(assert, code, body) {
  try {
    await body();
  } catch (error) {
    assert.equal(error.code, code, error.stack);
    assert.ok(error instanceof fastmq.FastmqError);
    assert.ok(error.message.length > 0);
    return error;
  }
  assert.fail(`expected ${code}`);
  return undefined;
}

/** Runs a program in a process of its own; what it printed and how it ended. */
export function run(program, ...flags) {
  const source = `const fastmq = require(${JSON.stringify(path.join(packagePath, 'index.cjs'))});\n`
    + program;
  return new Promise((resolve) => {
    execFile(process.execPath, [...flags, '-e', source], { timeout: 60_000 }, (error, out, err) => {
      resolve({ code: error === null ? 0 : error.code ?? error.signal, out: out.trim(), err });
    });
  });
}

/** A URL for each way to reach a server. */
export function urls() {
  const name = `fastmq-node-${process.pid}-${randomUUID().slice(0, 8)}`;
  const at = path.join(os.tmpdir(), name);
  return [`unix:${at}.sock`, `shm:${at}.shm`, 'tcp://127.0.0.1:0'];
}

/** The texts of the next `count` messages. */
export async function take(receiver, count) {
  const texts = [];
  while (texts.length < count) {
    const batch = await receiver.receive({ max: count - texts.length, timeout: 20_000 });
    for (const message of batch) texts.push(message.text());
    batch.close();
  }
  return texts;
}

/** Lets timers, sockets and what was rung have their turn. */
export function turn() {
  return new Promise((resolve) => {
    setImmediate(() => setImmediate(resolve));
  });
}
