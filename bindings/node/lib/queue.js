'use strict';
// Queues and subscriptions: where messages wait, and the iterators that take them.
//
// Back-pressure is the queue's own: a batch is taken when somebody asks for one, so what a slow
// consumer has not asked for waits in the queue, whose policy says what happens when that is full.

const { Batch, receive } = require('./batch.js');
const { call, errorOf, misuse } = require('./errors.js');
const { Hold, hub, newNumber, waiters } = require('./hub.js');
const { functionOf, known, signalOf, smallOf, timeOf } = require('./options.js');
const { asyncDispose, dispose } = require('./symbols.js');
const { Pending, checkSignal } = require('./wait.js');

/** Messages of a batch unless somebody says otherwise. */
const BATCH_MAX = 1024;
/** How long a consumer that never waits keeps the event loop for itself. */
const TURN_MS = 5;

const QUEUE_FIGURES = ['lanes', 'published', 'delivered', 'dropped', 'expired', 'pending',
  'pendingBytes', 'highWaterBytes', 'locks', 'waits', 'wakes', 'replaced'];

const now = performance.now.bind(performance);

/** Whether this error is the end of what an iterator gives. */
function isEnd(error) {
  return error.code === 'FASTMQ_END' || error.code === 'FASTMQ_CLOSED';
}

class Queue {
  #native;
  #client;
  #number;
  #pending = null;
  #hold = new Hold();
  #openNumber = 0;
  /** A batch of which an iterator has given the first `taken` messages. */
  #partly = null;
  #taken = 0;
  #turnFrom = 0;
  #isEnded = false;
  /** Whoever drops a queue drops what feeds it, and not before. */
  #feeding = new Set();

  constructor(client, native, number) {
    this.#client = client;
    this.#native = native;
    this.#number = number;
  }

  static open(client, make) {
    const number = newNumber();
    return new Queue(client, call(() => make(hub, number)), number);
  }

  static nativeOf(queue) {
    return queue.#native;
  }

  static feed(queue, subscription) {
    queue.#feeding.add(subscription);
  }

  static starve(queue, subscription) {
    queue.#feeding.delete(subscription);
  }

  /** The next batch of a queue, or null: it has ended. */
  static async next(queue, max) {
    try {
      return await queue.#receive(max);
    } catch (error) {
      if (isEnd(error)) return null;
      throw error;
    }
  }

  /** Takes what an iterator has left, or a new batch; null where there is none. */
  #take(max, arm) {
    if (this.#partly !== null) {
      const [batch, taken] = [this.#partly, this.#taken];
      this.#partly = null;
      if (taken < batch.length) return taken === 0 ? batch : Batch.rest(batch, taken);
    }
    const number = this.#openNumber + 1;
    const batch = receive(this.#native, this.#client, max, arm, this, number);
    // Whatever was received, the batch before it has ended.
    this.#openNumber = number;
    return batch;
  }

  #checkFree() {
    if (this.#pending !== null) throw misuse('another receive of this queue waits');
  }

  tryReceive(max = BATCH_MAX) {
    this.#checkFree();
    return this.#take(smallOf(max, 'max'), false);
  }

  async receive(options) {
    const from = known(options, ['max', 'timeout', 'signal'], 'receive');
    const max = smallOf(from.max, 'max') ?? BATCH_MAX;
    const timeout = timeOf(from.timeout, 'timeout');
    return this.#receive(max, timeout, signalOf(from.signal));
  }

  #receive(max, timeout, signal) {
    checkSignal(signal);
    this.#checkFree();
    if (timeout === 0) {
      const batch = this.#take(max, false);
      if (batch === null) throw errorOf('FASTMQ_AGAIN');
      return batch;
    }
    // A consumer that always finds something lets timers and sockets have their turn.
    const isTurnOver = this.#turnFrom > 0 && now() - this.#turnFrom > TURN_MS;
    if (!isTurnOver) {
      const batch = this.#take(max, true);
      if (batch !== null) {
        if (this.#turnFrom === 0) this.#turnFrom = now();
        return batch;
      }
    }
    this.#turnFrom = 0;
    waiters.set(this.#number, this);
    this.#hold.take();
    const end = () => {
      this.#pending = null;
      waiters.delete(this.#number);
      this.#hold.release();
    };
    this.#pending = new Pending({ timeout, signal, end });
    this.#pending.max = max;
    if (isTurnOver) setImmediate(() => this.onReady());
    return this.#pending.promise;
  }

  /** The native half says that there is something. */
  onReady() {
    const pending = this.#pending;
    if (pending === null) return;
    try {
      const batch = this.#take(pending.max, true);
      if (batch !== null) pending.resolve(batch);
    } catch (error) {
      pending.reject(error);
    }
  }

  endBatch(number) {
    if (this.#openNumber === number) this.#native.release();
  }

  /** Iterates over what `next` gives, until the queue ends; `leave` is called when it is left. */
  #iterator(next, leave) {
    let waiting = null;
    return {
      next: async () => {
        try {
          const received = next();
          waiting = this.#pending;
          return { done: false, value: await received };
        } catch (error) {
          if (isEnd(error)) return { done: true, value: undefined };
          throw error;
        } finally {
          waiting = null;
        }
      },
      return: async (value) => {
        // A `next` that still waits has nobody to wait for.
        waiting?.reject(errorOf('FASTMQ_END'));
        leave?.();
        return { done: true, value };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  [Symbol.asyncIterator]() {
    const iterator = this.#iterator(() => this.#firstOfBatch());
    const { next } = iterator;
    iterator.next = () => {
      const batch = this.#partly;
      if (batch === null || this.#taken >= batch.length) return next();
      this.#taken += 1;
      return Promise.resolve({ done: false, value: batch.at(this.#taken - 1) });
    };
    return iterator;
  }

  async #firstOfBatch() {
    const batch = await this.#receive(BATCH_MAX);
    this.#partly = batch;
    this.#taken = 1;
    return batch.at(0);
  }

  batches(options) {
    const from = known(options, ['max', 'signal'], 'batches');
    const max = smallOf(from.max, 'max') ?? BATCH_MAX;
    const signal = signalOf(from.signal);
    let last = null;
    const receiveNext = async () => {
      last = await this.#receive(max, undefined, signal);
      return last;
    };
    return this.#iterator(receiveNext, () => last?.close());
  }

  statistics() {
    const figures = call(() => this.#native.statistics());
    return Object.fromEntries(QUEUE_FIGURES.map((name, index) => [name, figures[index]]));
  }

  get fd() {
    return call(() => this.#native.fd());
  }

  ref() {
    this.#hold.want(true, this.#pending !== null);
    return this;
  }

  unref() {
    this.#hold.want(false);
    return this;
  }

  close() {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#partly = null;
    this.#native.close();
    this.#feeding.clear();
    this.#pending?.reject(errorOf('FASTMQ_CLOSED', 'the queue is closed'));
  }

  [dispose]() {
    this.close();
  }
}

class Subscription {
  #native;
  #queue;
  #ownsQueue;
  #isEnded = false;
  #consuming;

  constructor(client, native, pattern, queue) {
    this.#native = native;
    this.pattern = pattern;
    this.#ownsQueue = queue === undefined;
    this.#queue = queue ?? Queue.open(client, (...to) => native.queue(...to));
    this.id = native.id();
    Queue.feed(this.#queue, this);
  }

  get queue() {
    return this.#queue;
  }

  receive(options) {
    return this.#queue.receive(options);
  }

  tryReceive(max) {
    return this.#queue.tryReceive(max);
  }

  batches(options) {
    return this.#queue.batches(options);
  }

  [Symbol.asyncIterator]() {
    return this.#queue[Symbol.asyncIterator]();
  }

  statistics() {
    const [delivered, dropped] = this.#native.counts();
    return { id: this.id, delivered, dropped };
  }

  /** Has `onBatch` called with each batch, as `consume` says. */
  static consume(subscription, limits, onBatch) {
    subscription.#consuming = consume(subscription.#queue, limits, onBatch);
  }

  /** Whether somebody has ended it. */
  static isEnded(subscription) {
    return subscription.#isEnded;
  }

  /** Settles when what it consumes has ended, and its last callback. */
  get done() {
    return this.#consuming ?? Promise.resolve();
  }

  ref() {
    this.#queue.ref();
    return this;
  }

  unref() {
    this.#queue.unref();
    return this;
  }

  unsubscribe() {
    if (this.#isEnded) return;
    this.#isEnded = true;
    Queue.starve(this.#queue, this);
    this.#native.unsubscribe();
    if (this.#ownsQueue) this.#queue.close();
  }

  close() {
    this.unsubscribe();
  }

  [dispose]() {
    this.unsubscribe();
  }

  async [asyncDispose]() {
    this.unsubscribe();
    await this.done;
  }
}

/**
 * Calls `onBatch` with each batch of a queue and with a function that takes promises: no more than
 * `max` of them are unsettled at once, and what comes meanwhile waits in the queue. With `isInTurn`
 * a batch waits for all promises of the one before it. Settles when the queue has ended, and they.
 */
async function consume(queue, { max, isInTurn }, onBatch) {
  let running = 0;
  let wake;
  const settled = () => {
    running -= 1;
    wake?.();
  };
  const wait = (promise) => {
    running += 1;
    promise.then(settled, (error) => {
      settled();
      uncaught(error);
    });
  };
  const untilAtMost = async (most) => {
    while (running > most) {
      await new Promise((resolve) => {
        wake = resolve;
      });
    }
  };
  for (;;) {
    if (running > 0) await untilAtMost(isInTurn ? 0 : max - 1);
    const batch = await Queue.next(queue, max - running);
    if (batch === null) break;
    onBatch(batch, wait);
  }
  await untilAtMost(0);
}

/** What is thrown where nobody can catch it. */
function uncaught(error) {
  process.nextTick(() => {
    throw error;
  });
}

/** Calls `onError`; what that throws ends no consumer. */
function reporting(onError) {
  return (error, message) => {
    try {
      onError(error, message);
    } catch (thrown) {
      uncaught(thrown);
    }
  };
}

/** Calls `onMessage` with each message until `isEnded`, and `wait` with promises that it gives. */
function eachMessage(onMessage, onError, isEnded) {
  const report = reporting(functionOf(onError, 'onError') ?? uncaught);
  return (batch, wait) => {
    for (const message of batch) {
      if (isEnded()) break;
      try {
        const result = onMessage(message);
        if (typeof result?.then === 'function') {
          wait(result.then(undefined, (error) => report(error, message)));
        }
      } catch (error) {
        report(error, message);
      }
    }
  };
}

module.exports = { BATCH_MAX, Queue, Subscription, eachMessage, reporting, uncaught };
