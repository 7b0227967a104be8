'use strict';
// One pending promise: settled once, by what it waits for, its time-out or its signal.

const { AbortError, errorOf } = require('./errors.js');

/** The longest time that a timer of Node's takes. */
const TIMER_MS_MAX = 0x7fff_ffff;

class Pending {
  #resolve;
  #reject;
  #end;
  #timer;
  #signal;
  #onAbort;

  /**
   * `end` is called once, when it is settled in whatever way. `late` makes the error of a
   * time-out.
   */
  constructor({ timeout, signal, end, late }) {
    this.#end = end;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    if (timeout !== undefined && timeout <= TIMER_MS_MAX) {
      const sentence = late ?? 'nothing has come in time';
      this.#timer = setTimeout(() => this.reject(errorOf('FASTMQ_TIMEOUT', sentence)), timeout);
      // Whoever waits says what holds the process.
      this.#timer.unref();
    }
    if (signal !== undefined) {
      this.#signal = signal;
      this.#onAbort = () => this.reject(new AbortError(signal.reason));
      signal.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  get isSettled() {
    return this.#end === undefined;
  }

  #settle() {
    if (this.#end === undefined) return false;
    const end = this.#end;
    this.#end = undefined;
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#onAbort);
    end();
    return true;
  }

  resolve(value) {
    if (this.#settle()) this.#resolve(value);
  }

  reject(error) {
    if (this.#settle()) this.#reject(error);
  }
}

/** Throws if the signal has aborted already. */
function checkSignal(signal) {
  if (signal?.aborted) throw new AbortError(signal.reason);
}

module.exports = { Pending, checkSignal };
