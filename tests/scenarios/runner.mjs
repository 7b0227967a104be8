// Runs scenarios in Node: README.md says what they are.
//
// runner.mjs FILE...: each file is a scenario; runner.mjs -: steps from the standard input, each
// answered by a line. FASTMQ_NODE is where the package is.

import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const from = path.resolve(process.env.FASTMQ_NODE ?? path.join(here, '../../bindings/node'));
const fastmq = await import(path.join(from, 'index.mjs'));

const PATIENCE = 20_000;
const SCHEMES = ['unix', 'shm', 'tcp'];
/** What a promise of a request rejects with when it was not even sent. */
const NOT_SENT = ['AGAIN', 'INVALID', 'TOO_LARGE', 'CLOSED', 'MISUSE', 'DENIED', 'UNAVAILABLE'];
let places = 0;

/** A step did not do what its line says. */
class Failed extends Error {}

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
const turn = () => new Promise((resolve) => { setImmediate(resolve); });

/** `-` is nothing, `*N` is N times x, `%XX` a byte. */
function decode(word) {
  if (word === '-') return Buffer.alloc(0);
  if (word.startsWith('*')) return Buffer.alloc(Number(word.slice(1)), 'x');
  const bytes = [];
  for (let at = 0; at < word.length; at += 1) {
    if (word[at] === '%') {
      bytes.push(parseInt(word.slice(at + 1, at + 3), 16));
      at += 2;
    } else {
      bytes.push(...Buffer.from(word[at]));
    }
  }
  return Buffer.from(bytes);
}

function show(value) {
  return String(value).slice(0, 80);
}

function same(what, got, expected) {
  const isSame = Buffer.isBuffer(got) ? got.equals(expected) : got === expected;
  if (!isSame) throw new Failed(`${what}: got ${show(got)}, expected ${show(expected)}`);
}

/** One line: words, fields and what is expected. A field that nobody asks for is a fault. */
class Step {
  constructor(line) {
    const [does, expected] = line.split('->');
    const all = does.trim().split(/ +/);
    [this.verb] = all;
    this.words = all.slice(1).filter((word) => !word.includes('='));
    this.fields = all.slice(1).filter((word) => word.includes('='))
      .map((word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]);
    const [status, part] = (expected ?? 'OK').trim().split(/ +/);
    this.status = status;
    this.part = decode(part ?? '-').toString();
    this.index = 0;
  }

  name(index) {
    if (index >= this.words.length) throw new Failed(`${this.verb} has too few words`);
    return this.words[index];
  }

  bytes(index) {
    return decode(this.name(index));
  }

  text(index) {
    return this.bytes(index).toString();
  }

  take(name) {
    const at = this.fields.findIndex(([field]) => field === name);
    return at < 0 ? undefined : decode(this.fields.splice(at, 1)[0][1]);
  }

  takeText(name) {
    return this.take(name)?.toString();
  }

  number(name) {
    const value = this.take(name);
    return value === undefined ? undefined : Number(value);
  }

  prefixed(prefix) {
    const isOne = ([name]) => name.startsWith(prefix);
    const found = this.fields.filter(isOne);
    this.fields = this.fields.filter((field) => !isOne(field));
    const named = (name) => decode(name.slice(prefix.length)).toString();
    return found.map(([name, value]) => [named(name), decode(value)]);
  }

  /** Those of `names` that are given, by their names here: numbers as such, the rest as texts. */
  options(...names) {
    const given = {};
    for (const name of names) {
      const value = this.takeText(name);
      if (value !== undefined) given[camel(name)] = /^\d+$/.test(value) ? Number(value) : value;
    }
    return given;
  }

  headers() {
    const headers = this.prefixed('header.');
    return headers.length === 0 ? {} : { headers };
  }

  /** What is sent beside subject and payload. */
  outgoing() {
    const options = this.headers();
    const key = this.take('key');
    if (key !== undefined) options.key = key;
    Object.assign(options, this.options('reply_to', 'ttl'));
    if (this.number('keep_last')) options.keepLast = true;
    return options;
  }

  request() {
    return { ...this.outgoing(), timeout: this.number('timeout') ?? PATIENCE };
  }

  code() {
    return `FASTMQ_${this.takeText('status') ?? 'OK'}`;
  }
}

/** Handles by name, the last message of each queue, and requests by requester and token. */
class Scenario {
  constructor() {
    this.things = new Map();
    this.messages = new Map();
    this.requests = new Map();
  }

  /** Does what a line says; gives what it has to tell. */
  async run(line) {
    const step = new Step(line);
    const repeat = step.number('repeat') ?? 1;
    if (step.takeText('not') === 'node' || (step.takeText('in') ?? 'node') !== 'node') return '';
    const does = this[`do_${step.verb}`];
    if (does === undefined) throw new Failed(`unknown step ${step.verb}`);
    const { fields } = step;
    let status = 'OK';
    let sentence = '';
    let told = '';
    try {
      for (let index = 0; index < repeat; index += 1) {
        step.fields = [...fields];
        step.index = index;
        [status, told] = ((await does.call(this, step)) ?? 'OK').split('|');
      }
    } catch (error) {
      if (!(error instanceof fastmq.FastmqError)) throw error;
      status = error.code.replace('FASTMQ_', '');
      sentence = error.message;
      // What a refusal leaves unread is no fault.
      step.fields = [];
    }
    if (status !== step.status || !sentence.includes(step.part)) {
      throw new Failed(`got ${status} (${sentence}), expected ${step.status} ${step.part}`);
    }
    if (step.fields.length > 0) throw new Failed(`unknown field ${step.fields[0][0]}`);
    return told ?? '';
  }

  find(name) {
    if (!this.things.has(name)) throw new Failed(`nothing is called ${name}`);
    return this.things.get(name);
  }

  thing(step, index = 0) {
    return this.find(step.name(index));
  }

  keep(step, thing) {
    this.things.set(step.name(0), thing);
  }

  async close() {
    for (const thing of [...this.things.values()].reverse()) await thing.close();
  }

  // Clients and servers.

  do_open(step) {
    this.keep(step, fastmq.open(step.options('memory_max', 'queue_capacity', 'payload_max')));
  }

  async do_connect(step) {
    let url = step.name(1);
    if (!url.includes(':')) {
      const [server, scheme] = url.split('.');
      url = this.find(server).urls[SCHEMES.indexOf(scheme)];
    }
    this.keep(step, await fastmq.connect(url, step.options('name', 'token')));
  }

  do_listen(step) {
    const at = path.join(os.tmpdir(), `fastmq-scenario-${process.pid}-${places}`);
    places += 1;
    const urls = [`unix:${at}.sock`, `shm:${at}.shm`, 'tcp://127.0.0.1:0'];
    const server = this.thing(step, 1).listen(urls, step.options('name', 'token'));
    this.keep(step, server);
    return `OK|${server.urls.join(' ')}`;
  }

  async do_drain(step) {
    await this.thing(step).drain({ timeout: step.number('timeout') ?? PATIENCE });
  }

  async do_close(step) {
    await this.thing(step).close();
  }

  do_client_statistics(step) {
    this.figures(step, this.thing(step).statistics());
  }

  figures(step, figures) {
    for (const [name, value] of step.fields) same(name, figures[camel(name)], Number(value));
    step.fields = [];
  }

  // Publishing.

  do_publish(step) {
    this.thing(step).publish(step.text(1), step.bytes(2), step.outgoing());
  }

  async do_publish_wait(step) {
    await this.thing(step).publishWait(step.text(1), step.bytes(2), step.request());
  }

  do_forget_last(step) {
    this.thing(step).forgetLast(step.text(1));
  }

  do_publisher_open(step) {
    this.keep(step, this.thing(step, 1).publisher(step.text(2)));
  }

  do_publisher_publish(step) {
    this.thing(step).publish(step.bytes(1), step.outgoing());
  }

  do_publisher_claim(step) {
    const claim = this.thing(step).claim(Number(step.name(1)));
    if (step.words.length < 3) {
      claim.abandon();
    } else {
      const payload = step.bytes(2);
      payload.copy(claim.bytes);
      claim.commit(payload.length);
    }
  }

  // Receiving.

  do_queue_open(step) {
    const options = { ...step.options('capacity'), ...this.policy(step) };
    this.keep(step, this.thing(step, 1).queue(options));
  }

  policy(step) {
    const policy = step.takeText('policy');
    return policy === undefined ? {} : { policy: camel(policy) };
  }

  subscribeOptions(step) {
    const options = { ...step.options('group', 'weight', 'tag'), ...this.policy(step) };
    const mode = step.takeText('group_mode');
    if (mode !== undefined) options.groupMode = camel(mode);
    const queue = step.takeText('queue');
    if (queue !== undefined) options.queue = this.find(queue);
    if (step.number('replay_last')) options.replayLast = true;
    return options;
  }

  do_subscribe(step) {
    this.keep(step, this.thing(step, 1).subscribe(step.text(2), this.subscribeOptions(step)));
  }

  do_unsubscribe(step) {
    this.thing(step).unsubscribe();
  }

  async do_receive(step) {
    const timeout = step.number('timeout') ?? PATIENCE;
    const batch = await this.thing(step).receive({ max: 1, timeout });
    const message = batch.at(0);
    batch.close();
    this.messages.set(step.name(0), message);
    same('subject', message.subject, step.text(1));
    same('payload', message.payload, step.bytes(2));
    this.sameHeaders(message.headers, step.prefixed('header.'));
    for (const [name, value] of step.fields) {
      const wanted = this.shown(decode(value));
      const got = message[camel(name)];
      if (typeof got === 'boolean') same(name, Number(got), Number(wanted));
      else if (Buffer.isBuffer(got)) same(name, got, wanted);
      else same(name, String(got), wanted.toString());
    }
    step.fields = [];
  }

  /** An id is known by the name of its subscription. */
  shown(value) {
    const text = value.toString();
    return text.startsWith('@') ? Buffer.from(String(this.find(text.slice(1)).id)) : value;
  }

  sameHeaders(got, expected) {
    if (expected.length === 0) return;
    const listed = (headers) => headers.map(([name, value]) => `${name}=${this.shown(value)}`);
    same('headers', listed(got).join(' '), listed(expected).join(' '));
  }

  do_queue_statistics(step) {
    const thing = this.thing(step);
    this.figures(step, (thing.queue ?? thing).statistics());
  }

  do_subscription_statistics(step) {
    this.figures(step, this.thing(step).statistics());
  }

  // Asking and answering.

  do_respond(step) {
    const prefix = step.bytes(3);
    const options = { code: step.code(), ...step.headers() };
    this.keep(step, this.thing(step, 1).respond(step.text(2), this.subscribeOptions(step),
      (request) => request.reply(Buffer.concat([prefix, request.payload]), options)));
  }

  do_reply(step) {
    const options = { code: step.code(), ...step.headers() };
    const request = this.messages.get(step.name(1));
    this.thing(step).reply(request, step.bytes(2), options);
  }

  async do_request(step) {
    const headers = step.prefixed('answer.');
    const options = step.request();
    const request = this.thing(step).request(step.text(1), step.bytes(2), options);
    const answer = await this.answer(request);
    if (step.words.length > 3) same('answer', answer.payload, step.bytes(3));
    this.sameHeaders(answer.headers, headers);
    return answer.code.replace('FASTMQ_', '');
  }

  /** The answer of a request, also one that is an error with something in it. */
  async answer(request) {
    try {
      return await request;
    } catch (error) {
      if (error.reply === undefined) throw error;
      const isBare = error.reply.size === 0 && error.reply.headers.length === 0;
      if (isBare) throw error;
      return error.reply;
    }
  }

  async do_request_many(step) {
    const options = { answersMax: Infinity, ...step.options('answers_max'), ...step.request() };
    const answers = await this.thing(step).requestMany(step.text(1), step.bytes(2), options);
    const sorted = (payloads) => payloads.map(String).sort().join(' ');
    const got = answers.map((answer) => answer.payload);
    same('answers', sorted(got), sorted(step.words.slice(3).map(decode)));
    return answers.code.replace('FASTMQ_', '');
  }

  do_requester_open(step) {
    this.keep(step, this.thing(step, 1).requester(step.options('subject', 'in_flight_max')));
  }

  async do_requester_submit(step) {
    const requester = this.thing(step);
    const subject = step.takeText('subject');
    const controller = new AbortController();
    const options = { ...step.request(), signal: controller.signal };
    const request = subject === undefined ? requester.request(step.bytes(2), options)
      : requester.requestTo(subject, step.bytes(2), options);
    let refusal;
    request.catch((error) => {
      if (NOT_SENT.includes(error.code?.replace('FASTMQ_', '')) && error.reply === undefined) {
        refusal = error;
      }
    });
    await turn();
    if (refusal !== undefined) throw refusal;
    const token = Number(step.name(1)) + step.index;
    this.requests.set(`${step.name(0)} ${token}`, { request, controller });
  }

  do_requester_submit_many(step) {
    const controller = new AbortController();
    const options = { ...step.request(), ...step.options('credit', 'answers_max') };
    const stream = this.thing(step)
      .requestStream(step.bytes(2), { ...options, signal: controller.signal });
    this.requests.set(`${step.name(0)} ${step.name(1)}`, { stream, controller });
  }

  async do_requester_receive(step) {
    const asked = this.requests.get(`${step.name(0)} ${step.name(1)}`);
    if (asked === undefined) throw new Failed(`nothing was submitted as ${step.name(1)}`);
    const { request, stream } = asked;
    const { value: answer } = stream === undefined ? { value: await this.answer(request) }
      : await stream.next();
    if (answer === undefined) return 'END';
    same('payload', answer.payload, step.words.length > 2 ? step.bytes(2) : Buffer.alloc(0));
    this.sameHeaders(answer.headers, step.prefixed('header.'));
    return answer.code.replace('FASTMQ_', '');
  }

  do_requester_cancel(step) {
    this.requests.get(`${step.name(0)} ${step.name(1)}`).controller.abort();
  }

  do_reply_stream_open(step) {
    this.keep(step, this.thing(step, 1).replyStream(this.messages.get(step.name(2))));
  }

  do_reply_stream_send(step) {
    if (!this.thing(step).trySend(step.bytes(1), step.headers())) return 'AGAIN';
    return 'OK';
  }

  do_reply_stream_end(step) {
    this.thing(step).end(step.code());
  }
}

async function ofFile(file) {
  const scenario = new Scenario();
  const { name } = path.parse(file);
  const lines = readFileSync(file, 'utf8').split('\n');
  let number = 0;
  try {
    for (const line of lines) {
      number += 1;
      if (line !== '' && !line.startsWith('#')) await scenario.run(line);
    }
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    console.log(`not ok - ${name}: line ${number}: ${error.message}`);
    return false;
  } finally {
    await scenario.close();
  }
  console.log(`ok - ${name}`);
  return true;
}

async function ofInput() {
  const scenario = new Scenario();
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      console.log(`ok ${await scenario.run(line)}`.trimEnd());
    } catch (error) {
      console.log(`not ok ${line}: ${error.message}`);
    }
  }
  await scenario.close();
}

const files = process.argv.slice(2);
if (files.length === 1 && files[0] === '-') {
  await ofInput();
} else {
  for (const file of files) if (!await ofFile(file)) process.exitCode = 1;
}
