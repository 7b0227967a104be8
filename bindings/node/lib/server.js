'use strict';
// A broker that listens.

const { bytesOf } = require('./bytes.js');
const { call } = require('./errors.js');
const { Hold } = require('./hub.js');
const { known, smallOf, timeOf } = require('./options.js');
const { asyncDispose, dispose } = require('./symbols.js');

/** What a server has unless somebody says otherwise, as in the library. */
const SUBSCRIPTIONS_MAX = 4096;

/** Servers that listen: whether or not anybody holds them, they serve until they are closed. */
const listening = new Set();

class Server {
  #native;
  #client;
  #hold = new Hold();
  #isClosed = false;
  #closing;

  constructor(client, native) {
    this.#client = client;
    this.#native = native;
    listening.add(this);
    // As a server of node:net: the process serves until it is closed.
    this.#hold.take();
  }

  get urls() {
    return this.#native.urls();
  }

  get url() {
    return this.urls[0];
  }

  change(options) {
    const from = known(options, ['token', 'subscriptionsMax'], 'server');
    const token = Buffer.from(bytesOf(from.token, 'token'));
    const max = smallOf(from.subscriptionsMax, 'subscriptionsMax') || SUBSCRIPTIONS_MAX;
    call(() => this.#native.change(token, max));
  }

  ref() {
    this.#hold.want(true, !this.#isClosed);
    return this;
  }

  unref() {
    this.#hold.want(false);
    return this;
  }

  async close(options) {
    const timeout = timeOf(known(options, ['timeout'], 'close').timeout, 'timeout') ?? 0;
    if (this.#isClosed) {
      await this.#closing;
      return;
    }
    this.#isClosed = true;
    this.#closing = this.#native.closeLater(timeout);
    await this.#closing;
    this.#ended();
  }

  #ended() {
    listening.delete(this);
    this.#hold.release();
  }

  /** Closes the servers of a client that ends. */
  static closeOf(client) {
    for (const server of listening) if (server.#client === client) server[dispose]();
  }

  [dispose]() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#native.close();
    this.#ended();
  }

  async [asyncDispose]() {
    await this.close();
  }
}

module.exports = { Server };
