'use strict';
// Responders: what a handler gives becomes the answer. Answers that are there at once are sent
// together, one native call for those of a batch.

const { Message } = require('./batch.js');
const { EMPTY, bytesOf, putPayload } = require('./bytes.js');
const { FastmqError, check, codeOf, failure, numbers } = require('./errors.js');
const { native: library } = require('./hub.js');
const { Headers } = require('./headers.js');
const { known } = require('./options.js');
const { asyncDispose, dispose } = require('./symbols.js');

const AGAIN = 1;
const NOT_FOUND = 20;
const INTERNAL = 50;
/** Answers that are sent by one call. */
const ANSWERS_MAX = 1024;

/** Tokens and sizes of the answers of a batch, whose payloads are in `data`. */
const answers = new Uint32Array(ANSWERS_MAX * 3);
const data = Buffer.allocUnsafeSlow(64 * 1024);
/** The two halves of one token. */
const token = new Uint32Array(2);

class ReplyStream {
  #native;
  #client;

  constructor(client, native) {
    this.#client = client;
    this.#native = native;
  }

  #send(payload, options) {
    const from = known(options, ['headers'], 'reply');
    return this.#native.send(bytesOf(payload, 'payload'), Headers.encode(from.headers));
  }

  get credit() {
    const credit = this.#native.credit();
    if (credit < 0) throw failure(-credit);
    return credit;
  }

  trySend(payload, options) {
    const status = this.#send(payload, options);
    if (status === AGAIN) return false;
    check(status);
    return true;
  }

  async send(payload, options) {
    const { timeout, signal, ...rest } = options ?? {};
    const send = (...reply) => this.#send(...reply);
    return this.#client.whenRoom(this, send, payload, rest, { timeout, signal });
  }

  end(code) {
    const status = code === undefined ? 0 : numbers.get(code);
    if (status === undefined) throw new FastmqError('FASTMQ_INVALID', `${code} is no status`);
    check(this.#native.end(status));
  }

  close() {
    this.#native.close();
  }

  [dispose]() {
    this.close();
  }

  async [asyncDispose]() {
    this.close();
  }
}

/** What a handler has thrown, as an answer: its status and its sentence. */
function refusalOf(error) {
  const status = error instanceof FastmqError ? error.status : INTERNAL;
  return { status, text: String(error?.message ?? error) };
}

class Responding {
  #client;
  #native;
  #handler;
  #report;
  #count = 0;
  #end = 0;

  constructor(client, native, handler, report) {
    this.#client = client;
    this.#native = native;
    this.#handler = handler;
    this.#report = report;
  }

  /** Answers the requests of a batch; `wait` gets promises of what is answered later. */
  batch(batch, wait) {
    for (const message of batch) {
      let result;
      try {
        result = this.#handler(message);
      } catch (error) {
        wait(this.#refuse(message, error));
        continue;
      }
      if (typeof result?.then === 'function') {
        wait(result.then(
          (value) => this.#answer(message, value),
          (error) => this.#refuse(message, error),
        ));
      } else if (isStream(result)) {
        wait(this.#stream(message, result));
      } else if (!this.#gather(message, result)) {
        wait(this.#answer(message, result));
      }
    }
    this.#flush(wait);
  }

  /** Whether this message still wants an answer. */
  #isOpen(message) {
    return message.isRequest && !Message.isAnswered(message);
  }

  /** Puts an answer to those that are sent together; false if it must go alone. */
  #gather(message, value) {
    if (!this.#isOpen(message)) return true;
    if (this.#count === ANSWERS_MAX) return false;
    const size = putPayload(value ?? undefined, this.#end, data);
    if (size < 0) return false;
    Message.putToken(message, answers, this.#count * 3);
    answers[this.#count * 3 + 2] = size;
    this.#count += 1;
    this.#end += size;
    return true;
  }

  /** Sends what was gathered; `wait` gets promises of answers that wait for room. */
  #flush(wait) {
    const count = this.#count;
    this.#count = 0;
    this.#end = 0;
    let done = 0;
    let start = 0;
    while (done < count) {
      const left = answers.subarray(done * 3);
      const sent = this.#native.replyBatch(data.subarray(start), left, count - done);
      for (const until = done + sent; done < until; done += 1) start += answers[done * 3 + 2];
      if (done === count) break;
      const [low, high, size] = answers.subarray(done * 3, done * 3 + 3);
      if (library.lastStatus() === AGAIN) {
        // What is gathered next is written over it.
        const payload = Buffer.from(data.subarray(start, start + size));
        wait(this.#later(low, high, payload, 0));
      } else {
        this.#refused(library.lastStatus());
      }
      done += 1;
      start += size;
    }
  }

  #refused(status) {
    // The asker has gone, or has had enough: nobody can do anything about it.
    if (status !== NOT_FOUND) this.#report(failure(status));
  }

  /** Sends an answer as soon as there is room for it. */
  async #later(low, high, payload, status) {
    try {
      const send = (bytes) => this.#native.replyMessage(low, high, bytes, EMPTY, status);
      await this.#client.whenRoom({}, send, payload);
    } catch (error) {
      if (error.code !== 'FASTMQ_NOT_FOUND') this.#report(error);
    }
  }

  /** Answers one request, whose answer came later or is large. */
  async #answer(message, value) {
    if (isStream(value)) {
      await this.#stream(message, value);
    } else if (this.#isOpen(message)) {
      let payload;
      try {
        payload = bytesOf(value, 'the answer');
      } catch (error) {
        await this.#refuse(message, error);
        return;
      }
      Message.putToken(message, token, 0);
      await this.#later(token[0], token[1], payload, 0);
    }
  }

  /** Answers with what a handler has thrown. */
  async #refuse(message, error) {
    if (this.#isOpen(message)) {
      const { status, text } = refusalOf(error);
      Message.putToken(message, token, 0);
      await this.#later(token[0], token[1], Buffer.from(text), status);
    }
    this.#report(error, message);
  }

  /** Streams what an iterator gives as replies, as fast as the asker takes them. */
  async #stream(message, values) {
    if (!message.isRequest) return;
    let stream;
    try {
      stream = new ReplyStream(this.#client, Message.openStream(message));
      for await (const value of values) await stream.send(value);
      stream.end();
    } catch (error) {
      // Whoever asked has had enough: his iterator was left, which has ended the handler's too.
      if (error.code === 'FASTMQ_CANCELLED') return;
      if (stream === undefined) {
        await this.#refuseStream(message, error);
        return;
      }
      endWith(stream, refusalOf(error).status);
      this.#report(error, message);
    } finally {
      stream?.close();
    }
  }

  /** The asker takes no stream: that is its answer. */
  async #refuseStream(message, error) {
    if (error.code === 'FASTMQ_NOT_FOUND') return;
    const { status, text } = refusalOf(error);
    Message.putToken(message, token, 0);
    await this.#later(token[0], token[1], Buffer.from(text), status);
    this.#report(error, message);
  }
}

function endWith(stream, status) {
  try {
    stream.end(codeOf(status));
  } catch {
    // It has ended by the other side.
  }
}

function isStream(value) {
  return typeof value?.[Symbol.asyncIterator] === 'function';
}

module.exports = { ReplyStream, Responding };
