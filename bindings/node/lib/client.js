'use strict';
// Clients: a broker in this process, or one of a server.

const { bytesOf, describe, putPayload, putText, textOf } = require('./bytes.js');
const { FastmqError, call, check, checkTask, errorOf, failure, invalid } = require('./errors.js');
const { Hold, hub, native: library, newNumber, waiters } = require('./hub.js');
const { SUBSCRIBE, TIMEOUT_MS, connectChoices, countOf, functionOf, known, listenChoices,
  openChoices, queueChoices, signalOf, smallOf, subscribeChoices, timeOf, urlsOf } =
  require('./options.js');
const { FIELDS, lastingBytes, lastingOptions, outgoing } = require('./outgoing.js');
const { Message } = require('./batch.js');
const { Publisher } = require('./publisher.js');
const { BATCH_MAX, Queue, Subscription, eachMessage, reporting, uncaught } =
  require('./queue.js');
const { ANSWERS_ALL, Requester } = require('./requester.js');
const { ReplyStream, Responding } = require('./responder.js');
const { Server } = require('./server.js');
const { asyncDispose, dispose } = require('./symbols.js');
const { Pending, checkSignal } = require('./wait.js');

const AGAIN = 1;
/** Requests of a client that are in flight at most. */
const IN_FLIGHT_MAX = 65_535;
/** Calls of a callback that have not settled at most. */
const CALLS_MAX = 4096;
/** Bits of what the loop has found. */
const READY_ROOM = 4;

const FIGURES = ['threads', 'published', 'delivered', 'dropped', 'expired', 'refused', 'requests',
  'answers', 'lateAnswers', 'memory', 'memoryHigh', 'queues', 'subscriptions', 'clockCalls',
  'locks', 'parks', 'wakes', 'lastValues'];

const made = Symbol('made');

// A safety net that warns: a broker that nobody holds is closed when it is collected, some time.
const dropped = new FinalizationRegistry((how) => {
  process.emitWarning(`a client was collected before it was closed; close what ${how} gives`,
    'FastmqWarning');
});

/** How many calls of a callback may be unsettled, and whether batches wait for one another. */
function limitsOf(from) {
  const max = (countOf(from.max, 'max', CALLS_MAX) ?? BATCH_MAX) || CALLS_MAX;
  // What ends a batch hands its keys over to other members.
  return { max, isInTurn: from.groupMode === 'keyShared' };
}

class Client {
  #native;
  /** What calls by number call it. */
  #port;
  #number;
  #hold = new Hold();
  #asker = null;
  #isClosed = false;
  #isWatched = false;
  #onEvent;
  #keys = [];
  /** Who waits for room, in their order. */
  #rooms = [];
  /** What settles when callbacks and handlers have. */
  #consuming = new Set();

  constructor(key, native, number, onEvent) {
    if (key !== made) throw invalid('a client is made by open, connect or attach');
    this.#native = native;
    this.#port = native.number();
    this.#number = number;
    this.#onEvent = onEvent;
    if (onEvent !== undefined) waiters.set(number, this);
  }

  static open(options) {
    const number = newNumber();
    const native = call(() => library.open(hub, number, openChoices(options)));
    const client = new Client(made, native, number);
    dropped.register(client, 'open', client);
    return client;
  }

  static attach(key) {
    if (smallOf(key, 'key') === undefined) throw invalid('key is missing');
    const number = newNumber();
    return new Client(made, call(() => library.attach(hub, number, key)), number);
  }

  static async connect(urls, options) {
    const text = urlsOf(urls);
    const choices = connectChoices(options);
    const number = newNumber();
    const connected = checkTask(await library.connect(hub, number, text, choices));
    const client = new Client(made, connected.client(hub, number), number, options?.onEvent);
    dropped.register(client, 'connect', client);
    // A polled client's connection is driven by the loop, whatever it waits for.
    if (choices.polled) client.#watch();
    // What happened before there was a client.
    client.#tellEvents();
    return client;
  }

  #watch() {
    if (this.#isWatched) return;
    call(() => this.#native.watch());
    this.#isWatched = true;
  }

  #tellEvents() {
    const onEvent = this.#onEvent;
    if (onEvent === undefined) return;
    for (const event of this.#native.takeEvents()) {
      event.subject = Buffer.from(event.subject).toString();
      try {
        onEvent(event);
      } catch (error) {
        uncaught(error);
      }
    }
  }

  /** The native half says that there is room, or an event. */
  onReady() {
    this.#tellEvents();
    if (this.#rooms.length === 0) return;
    const found = this.#native.takeFound();
    if ((found & READY_ROOM) === 0 && !this.#isClosed) return;
    this.#tryRooms();
  }

  /** Tries again for all who wait, in their order; whoever is refused keeps his place. */
  #tryRooms() {
    const refused = new Set();
    for (const room of [...this.#rooms]) {
      if (!refused.has(room.sender) && !room.tryAgain()) refused.add(room.sender);
    }
  }

  /**
   * Calls `send` with a payload and options until the status that it gives is not a refusal for
   * want of room. What one `sender` sends so keeps its order.
   */
  async whenRoom(sender, send, payload, options, until = {}) {
    const timeout = timeOf(until.timeout, 'timeout');
    const signal = signalOf(until.signal);
    checkSignal(signal);
    const isBehind = this.#rooms.some((room) => room.sender === sender);
    const status = isBehind ? AGAIN : send(payload, options);
    if (status === AGAIN && timeout === 0) throw errorOf('FASTMQ_AGAIN');
    if (status === AGAIN) {
      // Whoever sends may change his bytes from now on.
      const kept = [lastingBytes(payload), lastingOptions(options)];
      return this.#wait(sender, () => send(...kept), timeout, signal, isBehind);
    }
    if (status !== 0) throw failure(status);
    return undefined;
  }

  #wait(sender, send, timeout, signal, isBehind) {
    this.#watch();
    const late = "there was no room in time: a subscriber's queue is full";
    const room = new Pending({ timeout, signal, late, end: () => this.#leftRoom(room) });
    room.sender = sender;
    room.tryAgain = () => {
      if (room.isSettled) return true;
      try {
        const status = send();
        if (status === AGAIN) return false;
        if (status === 0) room.resolve();
        else room.reject(failure(status));
      } catch (error) {
        room.reject(error);
      }
      return true;
    };
    waiters.set(this.#number, this);
    this.#hold.take();
    this.#rooms.push(room);
    // Now that the loop is told of room, nothing is missed.
    if (!isBehind) room.tryAgain();
    return room.promise;
  }

  #leftRoom(room) {
    this.#rooms = this.#rooms.filter((other) => other !== room);
    if (this.#rooms.length > 0) {
      // Who stood behind it may go now.
      queueMicrotask(() => this.#tryRooms());
      return;
    }
    this.#hold.release();
    if (this.#onEvent === undefined) waiters.delete(this.#number);
  }

  #send(subject, payload, options) {
    if (options === undefined) {
      const subjectSize = typeof subject === 'string' ? putText(subject, 0) : -1;
      const size = subjectSize < 0 ? -1 : putPayload(payload, subjectSize);
      if (size >= 0) return library.publish(this.#port, subjectSize, size);
      return this.#native.publishBytes(textOf(subject, 'subject'), bytesOf(payload, 'payload'));
    }
    const { key, headers, rest } = outgoing(known(options, FIELDS, 'publish'));
    const bytes = bytesOf(payload, 'payload');
    return this.#native.publishMessage(textOf(subject, 'subject'), bytes, key, headers, rest);
  }

  publish(subject, payload, options) {
    const status = this.#send(subject, payload, options);
    if (status !== 0) throw failure(status);
  }

  tryPublish(subject, payload, options) {
    const status = this.#send(subject, payload, options);
    if (status === AGAIN) return false;
    check(status);
    return true;
  }

  async publishWait(subject, payload, options) {
    const { timeout, signal, ...rest } = options ?? {};
    const fields = Object.keys(rest).length === 0 ? undefined : rest;
    const send = (...message) => this.#send(subject, ...message);
    return this.whenRoom(this, send, payload, fields, { timeout, signal });
  }

  publishBatch(messages) {
    let done = 0;
    if (typeof messages?.[Symbol.iterator] !== 'function') {
      throw invalid(`messages are ${describe(messages)}; an iterable of { subject, payload }`);
    }
    try {
      for (const message of messages) {
        if (message === null || typeof message !== 'object') {
          throw invalid(`a message is ${describe(message)}; { subject, payload }`);
        }
        const { subject, payload, ...rest } = message;
        const options = Object.keys(rest).length === 0 ? undefined : rest;
        const status = this.#send(subject, payload, options);
        if (status === AGAIN) return done;
        check(status);
        done += 1;
      }
    } catch (error) {
      if (error instanceof FastmqError) error.accepted = done;
      throw error;
    }
    return done;
  }

  publisher(subject) {
    const native = call(() => this.#native.publisher(textOf(subject, 'subject')));
    return new Publisher(this, native, subject);
  }

  forgetLast(subject) {
    check(this.#native.forgetLast(textOf(subject, 'subject')));
  }

  queue(options) {
    const choices = queueChoices(options);
    return Queue.open(this.#native, (...to) => this.#native.queue(...to, choices));
  }

  #subscribe(pattern, from) {
    textOf(pattern, 'pattern');
    const choices = subscribeChoices(from);
    const { queue } = from;
    if (queue === undefined) {
      const native = call(() => this.#native.subscribe(pattern, choices));
      return new Subscription(this.#native, native, pattern);
    }
    if (!(queue instanceof Queue)) throw invalid(`queue is ${describe(queue)}; a Queue`);
    const into = Queue.nativeOf(queue);
    const native = call(() => this.#native.subscribeInto(pattern, choices, into));
    return new Subscription(this.#native, native, pattern, queue);
  }

  #consume(subscription, limits, onBatch) {
    Subscription.consume(subscription, limits, onBatch);
    const { done } = subscription;
    this.#consuming.add(done);
    done.finally(() => this.#consuming.delete(done));
  }

  subscribe(pattern, options, onMessage) {
    if (typeof options === 'function') return this.subscribe(pattern, undefined, options);
    const from = known(options, SUBSCRIBE, 'subscribe');
    functionOf(onMessage, 'onMessage');
    if (onMessage !== undefined && from.queue !== undefined) {
      throw invalid('a subscription with onMessage has a queue of its own; leave queue out');
    }
    const limits = limitsOf(from);
    functionOf(from.onError, 'onError');
    const subscription = this.#subscribe(pattern, from);
    const isEnded = () => Subscription.isEnded(subscription);
    const each = onMessage === undefined
      ? undefined : eachMessage(onMessage, from.onError, isEnded);
    if (each !== undefined) this.#consume(subscription, limits, each);
    return subscription;
  }

  respond(pattern, options, handler) {
    if (typeof options === 'function') return this.respond(pattern, undefined, options);
    const from = known(options, SUBSCRIBE, 'respond');
    if (functionOf(handler, 'handler') === undefined) throw invalid('handler is missing');
    if (from.queue !== undefined) throw invalid('a responder has a queue of its own');
    const limits = limitsOf(from);
    const report = reporting(functionOf(from.onError, 'onError') ?? (() => {}));
    const subscription = this.#subscribe(pattern, from);
    const responding = new Responding(this, this.#native, handler, report);
    this.#consume(subscription, limits, (batch, wait) => responding.batch(batch, wait));
    return subscription;
  }

  get #requests() {
    if (this.#isClosed) throw errorOf('FASTMQ_CLOSED', 'the client is closed');
    this.#asker ??= Requester.open(this.#native, this.#native, { inFlightMax: IN_FLIGHT_MAX });
    return this.#asker;
  }

  async request(subject, payload, options) {
    return this.#requests.ask(textOf(subject, 'subject'), payload, options);
  }

  requestStream(subject, payload, options) {
    return this.#requests.askMany(textOf(subject, 'subject'), payload, options, 1, 64);
  }

  async requestMany(subject, payload, options) {
    const { credit, ...rest } = options ?? {};
    if (credit !== undefined) throw invalid('credit is for requestStream');
    const many = this.#requests.askMany(textOf(subject, 'subject'), payload, rest, ANSWERS_ALL, 0);
    const answers = [];
    for await (const answer of many) answers.push(answer);
    Object.defineProperty(answers, 'code', { value: many.code });
    return answers;
  }

  requester(options) {
    return Requester.open(this.#native, this.#native, options);
  }

  reply(message, payload, options) {
    if (!(message instanceof Message)) {
      throw invalid(`request is ${describe(message)}; a message that was received`);
    }
    message.reply(payload, options);
  }

  replyStream(message) {
    if (!(message instanceof Message)) {
      throw invalid(`request is ${describe(message)}; a message that was received`);
    }
    return new ReplyStream(this, Message.openStream(message));
  }

  listen(urls, options) {
    const list = (Array.isArray(urls) ? urls : [urls]).map((url) => textOf(url, 'url'));
    const choices = listenChoices(options);
    return new Server(this, call(() => this.#native.listen(list, choices)));
  }

  statistics() {
    const figures = this.#native.statistics();
    return Object.fromEntries(FIGURES.map((name, index) => [name, figures[index]]));
  }

  get fd() {
    return call(() => this.#native.fd());
  }

  get nextDeadline() {
    return this.#native.nextDeadline();
  }

  dispatch(options) {
    const from = known(options, ['max', 'budget'], 'dispatch');
    const ready = this.#native.dispatch(smallOf(from.max, 'max') ?? 0,
      timeOf(from.budget, 'budget') ?? 0);
    if (ready < 0) throw failure(-ready);
    return {
      messages: (ready & 1) !== 0,
      answers: (ready & 2) !== 0,
      room: (ready & 4) !== 0,
      deadline: (ready & 8) !== 0,
      more: (ready & 16) !== 0,
    };
  }

  share() {
    const key = call(() => this.#native.share());
    this.#keys.push(key);
    return key;
  }

  async drain(options) {
    const from = known(options, ['timeout'], 'drain');
    const timeout = timeOf(from.timeout, 'timeout') ?? TIMEOUT_MS;
    const until = performance.now() + timeout;
    checkTask(await call(() => this.#native.drain(timeout)));
    await this.#consumed(until - performance.now());
  }

  /** Settles when all callbacks have, whose queues have ended. */
  async #consumed(timeout) {
    if (this.#consuming.size === 0) return;
    const late = 'callbacks or handlers have not settled in time';
    const pending = new Pending({ timeout, late, end: () => this.#hold.release() });
    this.#hold.take();
    Promise.all(this.#consuming).then(() => pending.resolve(), (error) => pending.reject(error));
    await pending.promise;
  }

  #end() {
    this.#isClosed = true;
    dropped.unregister(this);
    for (const key of this.#keys) this.#native.unshare(key);
    Server.closeOf(this);
    if (this.#asker !== null) Requester.end(this.#asker);
  }

  #ended() {
    const closed = errorOf('FASTMQ_CLOSED', 'the client is closed');
    for (const room of [...this.#rooms]) room.reject(closed);
    this.#tellEvents();
    waiters.delete(this.#number);
    this.#hold.release();
    this.#native.letGo();
  }

  close() {
    if (this.#isClosed) return;
    this.#end();
    this.#native.close();
    this.#ended();
  }

  [dispose]() {
    this.close();
  }

  async [asyncDispose]() {
    if (this.#isClosed) return;
    this.#end();
    await this.#native.closeLater();
    this.#ended();
  }
}

module.exports = { Client };
