'use strict';
// Publishers: one subject, the fastest way.

const { SMALL_BYTES, bytesOf, describe, isShared, putPayload } = require('./bytes.js');
const { call, check, failure, invalid, misuse } = require('./errors.js');
const { native: library } = require('./hub.js');
const { known, countOf } = require('./options.js');
const { FIELDS, outgoing } = require('./outgoing.js');
const { dispose } = require('./symbols.js');
const { markAsUntransferable } = require('node:worker_threads');

/** Bytes that payloads of a batch are gathered in; larger ones go alone. */
const GATHER_BYTES = 256 * 1024;
const GATHER_MAX = 4096;
const AGAIN = 1;

/** Payloads of a batch, one behind the other. */
const data = Buffer.allocUnsafeSlow(GATHER_BYTES);
const offsets = new Uint32Array(GATHER_MAX + 1);

/**
 * Gathers payloads from `from` on into `data` and `offsets`: how many fitted. None: the first one
 * is too large to be gathered.
 */
function gather(payloads, from) {
  const until = Math.min(payloads.length - from, GATHER_MAX);
  let end = 0;
  let count = 0;
  offsets[0] = 0;
  while (count < until) {
    const payload = payloads[from + count];
    if (typeof payload === 'string') {
      const size = payload.length;
      if (size > SMALL_BYTES || end + size * 3 > GATHER_BYTES) break;
      end += data.utf8Write(payload, end);
    } else {
      const bytes = payload instanceof Uint8Array ? payload : bytesOf(payload, 'payload');
      const size = bytes.length;
      if (size > SMALL_BYTES || end + size > GATHER_BYTES) break;
      if (size <= 48) {
        for (let index = 0; index < size; index += 1) data[end + index] = bytes[index];
      } else {
        data.set(bytes, end);
      }
      end += size;
    }
    count += 1;
    offsets[count] = end;
  }
  return count;
}

class Claim {
  #publisher;
  #native;
  #lent;
  #size;

  constructor(publisher, native, lent, size) {
    this.#publisher = publisher;
    this.#native = native;
    this.#lent = lent;
    this.#size = size;
    this.bytes = size === 0 ? Buffer.alloc(0) : Buffer.from(lent, 0, size);
  }

  get isOpen() {
    return this.#publisher !== null;
  }

  #end() {
    if (this.#publisher === null) throw misuse('the claim was committed or abandoned');
    Publisher.endClaim(this.#publisher);
    this.#publisher = null;
  }

  commit(size = this.#size) {
    countOf(size, 'size', this.#size);
    this.#end();
    if (this.#size === 0) check(this.#native.publishBytes(Buffer.alloc(0)));
    else check(this.#native.commit(this.#lent, this.#size, size));
  }

  abandon() {
    if (this.#publisher === null) return;
    this.#end();
    if (this.#size > 0) check(this.#native.abandon(this.#lent, this.#size));
  }

  [dispose]() {
    this.abandon();
  }
}

class Publisher {
  #native;
  /** What calls by number call it. */
  #port;
  #client;
  #claim = null;
  #isClosed = false;

  constructor(client, native, subject) {
    this.#client = client;
    this.#native = native;
    this.#port = native.number();
    this.subject = subject;
  }

  static endClaim(publisher) {
    publisher.#claim = null;
  }

  #send(payload, options) {
    if (options === undefined) {
      const size = putPayload(payload, 0);
      if (size >= 0) return library.publish(this.#port, 0, size);
      return this.#native.publishBytes(bytesOf(payload, 'payload'));
    }
    const { key, headers, rest } = outgoing(known(options, FIELDS, 'publish'));
    return this.#native.publishMessage(bytesOf(payload, 'payload'), key, headers, rest);
  }

  publish(payload, options) {
    const status = this.#send(payload, options);
    if (status !== 0) throw failure(status);
  }

  tryPublish(payload, options) {
    const status = this.#send(payload, options);
    if (status === AGAIN) return false;
    check(status);
    return true;
  }

  publishBatch(payloads) {
    const all = listOf(payloads);
    let done = 0;
    while (done < all.length) {
      const count = gather(all, done);
      const accepted = count === 0
        ? Number(this.tryPublish(all[done]))
        : call(() => this.#native.publishBatch(data, offsets.subarray(0, count + 1)));
      done += accepted;
      if (accepted < Math.max(count, 1)) {
        const status = count === 0 ? AGAIN : library.lastStatus();
        if (status === AGAIN) return done;
        const error = failure(status);
        error.accepted = done;
        throw error;
      }
    }
    return done;
  }

  /** Payloads that stand in one piece of memory already. */
  publishColumns(bytes, bounds) {
    if (!(bounds instanceof Uint32Array)) {
      throw invalid(`offsets are ${describe(bounds)}; a Uint32Array`);
    }
    const from = bytesOf(bytes, 'data');
    // Other threads may change shared offsets behind the check.
    const fixed = isShared(bounds.buffer) ? bounds.slice() : bounds;
    const accepted = call(() => this.#native.publishBatch(from, fixed));
    if (accepted < bounds.length - 1) {
      const status = library.lastStatus();
      if (status !== AGAIN) throw failure(status);
    }
    return accepted;
  }

  async publishWait(payload, options) {
    const { timeout, signal, ...rest } = options ?? {};
    const fields = Object.keys(rest).length === 0 ? undefined : rest;
    const send = (...message) => this.#send(...message);
    return this.#client.whenRoom(this, send, payload, fields, { timeout, signal });
  }

  claim(size) {
    if (this.#claim !== null) throw misuse('the publisher has an open claim');
    if (countOf(size, 'size', 0xffff_ffff) === undefined) throw invalid('size is missing');
    const lent = size === 0 ? null : call(() => this.#native.claim(size));
    // Its memory is the library's: another thread must not get it.
    if (lent !== null) markAsUntransferable(lent);
    this.#claim = new Claim(this, this.#native, lent, size);
    return this.#claim;
  }

  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#claim?.abandon();
    this.#port = 0;
    this.#native.close();
  }

  [dispose]() {
    this.close();
  }
}

/** Payloads as an array. */
function listOf(payloads) {
  if (Array.isArray(payloads)) return payloads;
  if (typeof payloads !== 'string' && typeof payloads?.[Symbol.iterator] === 'function'
    && !ArrayBuffer.isView(payloads)) {
    return [...payloads];
  }
  throw invalid(`payloads are ${describe(payloads)}; an array or another iterable of payloads`);
}

module.exports = { Claim, Publisher, data, gather, listOf, offsets };
