'use strict';
// Requests: promises for answers, many in flight, and iterators over many answers.
//
// A request's token is the place of its promise in a list. Answers are received for all promises
// at once, in one batch: when the native half rings, and after the submits of one turn.

const { Message, receive } = require('./batch.js');
const { bytesOf, putPayload, putText, textOf } = require('./bytes.js');
const { AbortError, call, errorOf, failure, misuse } = require('./errors.js');
const { Hold, hub, native: library, newNumber, waiters } = require('./hub.js');
const { TIMEOUT_MS, countOf, known, signalOf, smallOf, timeOf } = require('./options.js');
const { FIELDS, outgoing } = require('./outgoing.js');
const { data, gather, listOf, offsets } = require('./publisher.js');
const { asyncDispose, dispose } = require('./symbols.js');
const { checkSignal } = require('./wait.js');

const REQUEST = [...FIELDS, 'timeout', 'signal'];
const MANY = [...REQUEST, 'answersMax', 'credit', 'gap'];
const AGAIN = 1;
const ANSWERS_ALL = 0xffff_ffff;
const TIMER_MS_MAX = 0x7fff_ffff;
/** Batches of answers that are taken one after the other before the event loop has its turn. */
const BATCHES_MAX = 16;

/** The error of an answer that is none: its code and, if a responder has said one, its sentence. */
function refusal(message) {
  const error = errorOf(message.code, message.size > 0 ? message.text() : undefined);
  error.reply = message;
  return error;
}

function cancelled() {
  return errorOf('FASTMQ_CANCELLED', 'the requester was closed');
}

function closed() {
  return errorOf('FASTMQ_CLOSED', 'the client is closed');
}

/** One answer for one promise. */
class Single {
  constructor(requester, token, signal) {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    if (signal !== undefined) {
      this.signal = signal;
      this.onAbort = () => {
        requester.cancel(token);
        this.reject(new AbortError(signal.reason));
      };
      signal.addEventListener('abort', this.onAbort, { once: true });
    }
  }

  /** True: that was all. */
  take(message) {
    this.signal?.removeEventListener('abort', this.onAbort);
    if (message.status === 0) this.resolve(message);
    else this.reject(refusal(message));
    return true;
  }

  fail(error) {
    this.signal?.removeEventListener('abort', this.onAbort);
    this.reject(error);
  }
}

/** The answers to several requests, in their order. */
class Group {
  constructor(size) {
    this.answers = new Array(size);
    this.left = size;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Whoever asks may have been told of an earlier mistake.
    this.promise.catch(() => {});
  }
}

class Member {
  constructor(group, index) {
    this.group = group;
    this.index = index;
  }

  take(message) {
    const { group } = this;
    group.answers[this.index] = message;
    group.left -= 1;
    if (group.left === 0) group.resolve(group.answers);
    return true;
  }

  fail(error) {
    this.group.reject(error);
  }
}

/** Several answers to one request: what has come, and who waits for more. */
class Many {
  #requester;
  #token;
  #credit;
  #isOne;
  #waiting = [];
  #pending = null;
  #isOver = false;
  #error = null;
  #responders = new Set();
  #taken = 0;
  #signal;
  #onAbort;
  /** How the request ended, as a code. */
  code = 'FASTMQ_OK';

  constructor(requester, token, credit, isOne, signal) {
    this.#requester = requester;
    this.#token = token;
    this.#credit = credit;
    this.#isOne = isOne;
    if (signal !== undefined) {
      this.#signal = signal;
      this.#onAbort = () => {
        requester.cancel(token);
        this.fail(new AbortError(signal.reason));
      };
      signal.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  take(message) {
    const isLast = message.isEnd;
    const isOurs = message.subscriptionId === 0;
    if (!isOurs) this.#responders.add(message.subscriptionId);
    if (this.#isOver) return isLast;
    const { status } = message;
    if (isOurs) {
      this.code = message.code;
      // Others are gone, or late: that is an error where nobody has answered.
      if (status !== 3 && (this.#isOne || this.#responders.size === 0)) {
        this.#error = refusal(message);
      }
    } else if (status === 0 || (status !== 3 && !this.#isOne)) {
      this.#waiting.push(message);
    } else if (status !== 3) {
      this.#error = refusal(message);
    }
    if (isLast) this.#over();
    this.#wake();
    return isLast;
  }

  fail(error) {
    if (this.#isOver) return;
    this.#error = error;
    this.#over();
    this.#wake();
  }

  #over() {
    this.#isOver = true;
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }

  #wake() {
    const pending = this.#pending;
    if (pending === null) return;
    this.#pending = null;
    pending(this.#next());
  }

  /** What `next` gives now, or null: nothing yet. */
  #next() {
    const message = this.#waiting.shift();
    if (message !== undefined) {
      this.#grant();
      return { done: false, value: message };
    }
    if (!this.#isOver) return null;
    const error = this.#error;
    this.#error = null;
    return error === null ? { done: true, value: undefined } : Promise.reject(error);
  }

  /** A reply that was taken makes room for another one. */
  #grant() {
    if (this.#credit === 0 || this.#isOver) return;
    this.#taken += 1;
    const streams = Math.max(1, this.#responders.size);
    if (this.#taken < (this.#credit * streams) / 2) return;
    const replies = Math.floor(this.#taken / streams);
    if (replies === 0) return;
    this.#taken -= replies * streams;
    this.#requester.grant(this.#token, replies);
  }

  async next() {
    if (this.#pending !== null) throw misuse('another next of this iterator waits');
    return this.#next() ?? new Promise((resolve) => {
      this.#pending = resolve;
    });
  }

  async return(value) {
    if (!this.#isOver) {
      this.#over();
      this.#requester.cancel(this.#token);
    }
    this.#waiting = [];
    this.#error = null;
    this.#wake();
    return { done: true, value };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async [asyncDispose]() {
    await this.return();
  }
}

class Requester {
  #native;
  /** What calls by number call it. */
  #port;
  #client;
  #number;
  #hold = new Hold();
  /** Who waits, by token; free places are in `#free`. */
  #places = [];
  #free = [];
  #inFlight = 0;
  /** A look is under way. Else the native half rings when there is something. */
  #isLooking = false;
  #timer;
  /** How long the timer was set for; at most what any request in flight has left. */
  #timerMs = Infinity;
  #isClosed = false;
  /** Who waits for answers to make room. */
  #whenLooked = [];

  constructor(client, native, number, subject) {
    this.#client = client;
    this.#native = native;
    this.#port = native.number();
    this.#number = number;
    this.subject = subject;
  }

  static open(client, native, options) {
    const from = known(options, ['subject', 'inFlightMax'], 'requester');
    const subject = from.subject === undefined ? '' : textOf(from.subject, 'subject');
    const inFlightMax = smallOf(from.inFlightMax, 'inFlightMax') ?? 0;
    const number = newNumber();
    const opened = call(() => native.requester(hub, number, subject, inFlightMax));
    return new Requester(client, opened, number, subject);
  }

  get inFlight() {
    return this.#native.inFlight();
  }

  #place(waiter) {
    const token = this.#free.pop() ?? this.#places.length;
    this.#places[token] = waiter;
    return token;
  }

  #leave(token) {
    this.#places[token] = undefined;
    this.#free.push(token);
  }

  /** A request is out: its answer will be looked for, and its end. */
  #sent(timeout) {
    this.#inFlight += 1;
    if (this.#inFlight === 1) {
      this.#hold.take();
      waiters.set(this.#number, this);
    }
    if (timeout < this.#timerMs) {
      // Those before it may have less time left than it has.
      const isFirst = this.#timerMs === Infinity;
      this.#setTimer(isFirst ? timeout : Math.min(timeout, this.#native.nextDeadline()));
    }
    // Of a fate that is known at once nobody rings.
    if (!this.#isLooking) {
      this.#isLooking = true;
      queueMicrotask(() => this.#look());
    }
  }

  #setTimer(timeout) {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerMs = timeout;
    if (timeout > TIMER_MS_MAX) return;
    // One more, as the library's clock must have passed the time when it looks.
    this.#timer = setTimeout(() => this.#onTimer(), Math.ceil(timeout) + 1);
    this.#timer.unref();
  }

  #onTimer() {
    this.#timer = undefined;
    this.#timerMs = Infinity;
    this.#look();
    if (this.#inFlight > 0) this.#setTimer(this.#native.nextDeadline());
  }

  onReady() {
    this.#look();
  }

  /** Takes all answers that are there, and has the native half ring for the next. */
  #look() {
    this.#isLooking = true;
    try {
      for (let batches = 0; this.#inFlight > 0; batches += 1) {
        if (batches === BATCHES_MAX) {
          setImmediate(() => this.#look());
          return;
        }
        const batch = receive(this.#native, this.#client, 0, true);
        if (batch === null) break;
        for (const message of batch) this.#answered(message);
      }
    } catch (error) {
      this.#failAll(error.code === 'FASTMQ_END' ? closed() : error);
    }
    this.#isLooking = false;
    if (this.#inFlight === 0) this.#rest();
    this.#looked();
  }

  /** There may be room for more requests. */
  #looked() {
    if (this.#whenLooked.length === 0) return;
    const waiting = this.#whenLooked;
    this.#whenLooked = [];
    for (const resolve of waiting) resolve();
  }

  #answered(message) {
    const token = Message.smallToken(message);
    const waiter = this.#places[token];
    if (waiter !== undefined && waiter.take(message)) {
      this.#leave(token);
      this.#inFlight -= 1;
    }
  }

  #failAll(error) {
    const places = this.#places;
    this.#places = [];
    this.#free = [];
    this.#inFlight = 0;
    for (const waiter of places) waiter?.fail(error);
  }

  /** Nobody waits. */
  #rest() {
    this.#hold.release();
    waiters.delete(this.#number);
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerMs = Infinity;
  }

  /** Submits to a subject, or with '' to the requester's own. */
  #submit(subject, payload, options, token, timeout) {
    if (options === undefined) {
      const subjectSize = putText(subject, 0);
      const size = subjectSize < 0 ? -1 : putPayload(payload, subjectSize);
      if (size >= 0) return library.submit(this.#port, subjectSize, size, token, timeout);
    }
    const { key, headers, rest } = outgoing(options ?? {});
    const bytes = bytesOf(payload, 'payload');
    return this.#native.submitMessage(subject, bytes, key, headers, rest, token, timeout);
  }

  /** Asks; `options` are those of a request, or undefined. */
  ask(subject, payload, options) {
    let timeout = TIMEOUT_MS;
    let signal;
    let fields;
    if (options !== undefined) {
      const from = known(options, REQUEST, 'request');
      timeout = timeOf(from.timeout, 'timeout') ?? TIMEOUT_MS;
      signal = signalOf(from.signal);
      checkSignal(signal);
      if (FIELDS.some((name) => from[name] !== undefined)) fields = from;
    }
    const token = this.#place(undefined);
    let status;
    try {
      status = this.#submit(subject, payload, fields, token, timeout);
    } catch (error) {
      this.#leave(token);
      throw error;
    }
    if (status !== 0) {
      this.#leave(token);
      throw failure(status);
    }
    const waiter = new Single(this, token, signal);
    this.#places[token] = waiter;
    this.#sent(timeout);
    return waiter.promise;
  }

  async request(payload, options) {
    return this.ask('', payload, options);
  }

  async requestTo(subject, payload, options) {
    return this.ask(textOf(subject, 'subject'), payload, options);
  }

  async requestBatch(payloads, options) {
    const from = known(options, ['timeout'], 'requestBatch');
    const timeout = timeOf(from.timeout, 'timeout') ?? TIMEOUT_MS;
    const all = listOf(payloads);
    if (all.length === 0) return [];
    const group = new Group(all.length);
    const tokens = new Uint32Array(Math.min(all.length, 4096));
    let done = 0;
    while (done < all.length) {
      const count = gather(all, done);
      if (count === 0) {
        const token = this.#place(new Member(group, done));
        const status = this.#submit('', all[done], undefined, token, timeout);
        if (status !== 0) {
          this.#leave(token);
          throw failure(status);
        }
        this.#sent(timeout);
        done += 1;
        continue;
      }
      for (let index = 0; index < count; index += 1) {
        tokens[index] = this.#place(new Member(group, done + index));
      }
      const bounds = offsets.subarray(0, count + 1);
      const sent = this.#native.submitBatch(data, bounds, tokens, timeout);
      const status = sent < count ? library.lastStatus() : 0;
      for (let index = 0; index < count; index += 1) {
        if (index < sent) this.#sent(timeout);
        else this.#leave(tokens[index]);
      }
      done += sent;
      if (status === AGAIN && this.#inFlight > 0) {
        // As many are in flight as may be: the rest goes when answers have come.
        await new Promise((resolve) => {
          this.#whenLooked.push(resolve);
        });
        if (this.#isClosed) throw cancelled();
      } else if (status !== 0) {
        throw failure(status);
      }
    }
    return group.promise;
  }

  /** Asks for several answers. */
  askMany(subject, payload, options, answersDefault, creditDefault) {
    const from = known(options, MANY, 'request');
    const timeout = timeOf(from.timeout, 'timeout') ?? TIMEOUT_MS;
    const signal = signalOf(from.signal);
    checkSignal(signal);
    const answersMax = from.answersMax === Infinity
      ? ANSWERS_ALL : smallOf(from.answersMax, 'answersMax') ?? answersDefault;
    const credit = countOf(from.credit, 'credit', 1_048_576) ?? creditDefault;
    const gap = timeOf(from.gap, 'gap') ?? 0;
    const { key, headers, rest } = outgoing(from);
    const bytes = bytesOf(payload, 'payload');
    const token = this.#place(undefined);
    let status;
    try {
      status = this.#native.submitMany(subject, bytes, key, headers, rest, token, timeout,
        { answersMax, credit, gap: gap === Infinity ? 0 : gap });
    } catch (error) {
      this.#leave(token);
      throw error;
    }
    if (status !== 0) {
      this.#leave(token);
      throw failure(status);
    }
    const many = new Many(this, token, credit, answersMax <= 1, signal);
    this.#places[token] = many;
    this.#sent(gap === 0 ? timeout : Math.min(gap, timeout));
    return many;
  }

  requestStream(payload, options) {
    return this.askMany('', payload, options, 1, 64);
  }

  grant(token, replies) {
    // The request may have ended meanwhile.
    if (!this.#isClosed) this.#native.grant(token, replies);
  }

  cancel(token) {
    if (this.#isClosed) return;
    this.#native.cancel(token);
    // Its end is taken by whoever looks next.
    if (!this.#isLooking) {
      this.#isLooking = true;
      queueMicrotask(() => this.#look());
    }
  }

  ref() {
    this.#hold.want(true, this.#inFlight > 0);
    return this;
  }

  unref() {
    this.#hold.want(false);
    return this;
  }

  #end(error) {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#native.close();
    this.#failAll(error);
    this.#rest();
    this.#looked();
  }

  /** Ends the requester of a client that is closed. */
  static end(requester) {
    requester.#end(closed());
  }

  close() {
    this.#end(cancelled());
  }

  [dispose]() {
    this.close();
  }
}

module.exports = { ANSWERS_ALL, Requester };
