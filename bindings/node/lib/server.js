'use strict';
// A broker that listens.

const { bytesOf } = require('./bytes.js');
const { call } = require('./errors.js');
const { Hold } = require('./hub.js');
const { known, smallOf, timeOf } = require('./options.js');
const { asyncDispose, dispose } = require('./symbols.js');

/** What a server has unless somebody says otherwise, as in the library. */
const SUBSCRIPTIONS_MAX = 4096;

class Server {
  #native;
  #hold = new Hold();
  #isClosed = false;

  constructor(native) {
    this.#native = native;
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
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#native.closeLater(timeout);
    this.#hold.release();
  }

  [dispose]() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#native.close();
    this.#hold.release();
  }

  async [asyncDispose]() {
    await this.close();
  }
}

module.exports = { Server };
