'use strict';
// Received messages: a batch is copied once into a slab of this thread's memory, and a message is
// a place in it. What it shows lives for as long as anybody looks at it, whatever is closed.
//
// The layout of a slab is between this file and `src/copy.rs` and nobody else's.

const { markAsUntransferable } = require('node:worker_threads');
const { bytesOf, putPayload } = require('./bytes.js');
const { native } = require('./hub.js');
const { call, check, codeOf, failure, invalid, numbers } = require('./errors.js');
const { Headers, decode, find } = require('./headers.js');
const { known } = require('./options.js');
const { dispose } = require('./symbols.js');

const HEAD_WORDS = 4;
const RECORD_WORDS = 26;
/** What a receive says when the slab is too small. */
const TOO_SMALL = -1000;
const SLAB_BYTES = 256 * 1024;
/** With less than this a new slab is begun. */
const SLAB_LEFT_MIN = 32 * 1024;

const SUBJECT = 0;
const PAYLOAD = 2;
const REPLY_TO = 4;
const HEADERS = 6;
const KEY = 8;

const FLAG_REDELIVERED = 1;
const FLAG_MORE = 2;
const FLAG_END = 4;
const FLAG_REQUEST = 8;

class Slab {
  constructor(size) {
    this.bytes = Buffer.allocUnsafeSlow(size);
    // One payload that is transferred to another thread would take all others with it.
    markAsUntransferable(this.bytes.buffer);
    this.words = new Uint32Array(this.bytes.buffer, 0, size >> 2);
    this.used = 0;
  }
}

let current = new Slab(SLAB_BYTES);

/**
 * Receives a batch from `source`, a native queue or requester; null where there is none and `arm`
 * has the waiter told of the next one. Throws every other status. `owner` and `number` are for the
 * batch to end itself.
 */
function receive(source, client, max, arm, owner, number) {
  if (current.bytes.length - current.used < SLAB_LEFT_MIN) current = new Slab(SLAB_BYTES);
  let slab = current;
  let count = source.receive(slab.bytes, slab.used, max, arm);
  if (count === TOO_SMALL) {
    const needed = source.needed();
    slab = new Slab(Math.max(Math.ceil(needed / 8) * 8, SLAB_BYTES));
    if (slab.bytes.length === SLAB_BYTES) current = slab;
    count = source.copy(slab.bytes, 0);
  }
  if (count < 0) {
    if (count === -1) return null;
    throw failure(-count);
  }
  const first = slab.used >> 2;
  slab.used = slab.words[first];
  return new Batch(slab, first, 0, count, client, owner, number);
}

class Message {
  #slab;
  #at;
  #client;
  #isAnswered = false;

  constructor(slab, at, client) {
    this.#slab = slab;
    this.#at = at;
    this.#client = client;
  }

  #bytes(field) {
    const { bytes, words } = this.#slab;
    const at = words[this.#at + field];
    return bytes.subarray(at, at + words[this.#at + field + 1]);
  }

  #text(field) {
    const { bytes, words } = this.#slab;
    const at = words[this.#at + field];
    return bytes.utf8Slice(at, at + words[this.#at + field + 1]);
  }

  #wide(field) {
    const { words } = this.#slab;
    return words[this.#at + field] + words[this.#at + field + 1] * 0x1_0000_0000;
  }

  #wider(field) {
    const { words } = this.#slab;
    return BigInt(words[this.#at + field]) | (BigInt(words[this.#at + field + 1]) << 32n);
  }

  get subject() {
    const slab = this.#slab;
    const at = slab.words[this.#at];
    // Messages of one subject that stand together have their subject in one place.
    if (slab.subjectAt === at && at !== 0) return slab.subject;
    const text = this.#text(SUBJECT);
    slab.subjectAt = at;
    slab.subject = text;
    return text;
  }

  get payload() {
    return this.#bytes(PAYLOAD);
  }

  get size() {
    return this.#slab.words[this.#at + PAYLOAD + 1];
  }

  text() {
    return this.#text(PAYLOAD);
  }

  json() {
    return JSON.parse(this.#text(PAYLOAD));
  }

  get replyTo() {
    return this.#text(REPLY_TO);
  }

  get key() {
    return this.#bytes(KEY);
  }

  get headers() {
    return decode(this.#bytes(HEADERS));
  }

  header(name) {
    return find(this.#bytes(HEADERS), name);
  }

  get sequence() {
    return this.#wide(10);
  }

  get timestampNs() {
    return this.#wider(12);
  }

  get token() {
    return this.#wider(14);
  }

  get deliveryCount() {
    return this.#slab.words[this.#at + 16];
  }

  get lostBefore() {
    return this.#slab.words[this.#at + 17];
  }

  get status() {
    return this.#slab.words[this.#at + 18];
  }

  get code() {
    return codeOf(this.status);
  }

  get subscriptionId() {
    return this.#slab.words[this.#at + 19];
  }

  #has(flag) {
    return (this.#slab.words[this.#at + 20] & flag) !== 0;
  }

  get isRedelivered() {
    return this.#has(FLAG_REDELIVERED);
  }

  get isRequest() {
    return this.#has(FLAG_REQUEST);
  }

  get hasMore() {
    return this.#has(FLAG_MORE);
  }

  get isEnd() {
    return this.#has(FLAG_END);
  }

  get tag() {
    return this.#wide(21);
  }

  get publisher() {
    return this.#wider(23);
  }

  /** Both halves of the token of the request that this is. */
  #request() {
    const { words } = this.#slab;
    const [low, high] = [words[this.#at + 14], words[this.#at + 15]];
    if (low === 0 && high === 0) {
      throw invalid('token is 0; the message to answer is not a request');
    }
    return [low, high];
  }

  /** Answers the request that this is. */
  reply(payload, options) {
    const [low, high] = this.#request();
    const size = options === undefined ? putPayload(payload, 0) : -1;
    if (size >= 0) {
      check(native.reply(this.#client.number(), low, high, size));
    } else {
      const { code, headers } = known(options, ['headers', 'code'], 'reply');
      const status = code === undefined ? 0 : numbers.get(code);
      if (status === undefined) throw invalid(`${String(code)} is no status; such as FASTMQ_BUSY`);
      const encoded = Headers.encode(headers);
      check(this.#client.replyMessage(low, high, bytesOf(payload, 'payload'), encoded, status));
    }
    this.#isAnswered = true;
  }

  /** Opens the native reply stream of the request that this is. */
  static openStream(message) {
    const [low, high] = message.#request();
    const stream = call(() => message.#client.replyStream(low, high));
    message.#isAnswered = true;
    return stream;
  }

  /** Whether somebody has answered it already, or opened its stream. */
  static isAnswered(message) {
    return message.#isAnswered;
  }

  /** Puts the two halves of its token into `numbers`. */
  static putToken(message, numbersTo, at) {
    const { words } = message.#slab;
    numbersTo[at] = words[message.#at + 14];
    numbersTo[at + 1] = words[message.#at + 15];
  }

  /** The token of an answer, which was a small number. */
  static smallToken(message) {
    return message.#slab.words[message.#at + 14];
  }

  toString() {
    return this.text();
  }

  [Symbol.for('nodejs.util.inspect.custom')]() {
    const { subject, payload, status } = this;
    return status === 0 ? { subject, payload } : { subject, payload, code: this.code };
  }
}

class Batch {
  #slab;
  #head;
  #from;
  #client;
  #owner;
  #number;

  constructor(slab, head, from, length, client, owner, number) {
    this.#slab = slab;
    this.#head = head;
    this.#from = from;
    this.length = length;
    this.#client = client;
    this.#owner = owner;
    this.#number = number;
  }

  #message(index) {
    const at = this.#head + HEAD_WORDS + (this.#from + index) * RECORD_WORDS;
    return new Message(this.#slab, at, this.#client);
  }

  at(index) {
    const place = index < 0 ? this.length + index : index;
    if (!Number.isInteger(place) || place < 0 || place >= this.length) return undefined;
    return this.#message(place);
  }

  *[Symbol.iterator]() {
    for (let index = 0; index < this.length; index += 1) yield this.#message(index);
  }

  get messages() {
    const messages = new Array(this.length);
    for (let index = 0; index < this.length; index += 1) messages[index] = this.#message(index);
    return messages;
  }

  get timeNs() {
    const { words } = this.#slab;
    return BigInt(words[this.#head + 2]) | (BigInt(words[this.#head + 3]) << 32n);
  }

  /** What is left of it behind the first `count` messages; both are closed by either. */
  static rest(batch, count) {
    const left = batch.length - count;
    return new Batch(batch.#slab, batch.#head, batch.#from + count, left, batch.#client,
      batch.#owner, batch.#number);
  }

  close() {
    this.#owner?.endBatch(this.#number);
  }

  [dispose]() {
    this.close();
  }
}

module.exports = { Batch, Message, receive };
