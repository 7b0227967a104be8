'use strict';
// What this thread shares with the native half: who waits, what keeps the process alive meanwhile,
// and the bytes that small calls are made with.

const native = require('./native.js').load();

/** Bytes of the scratch; more than this is handed over as it is. */
const SCRATCH_BYTES = 64 * 1024;
const scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);

const waiters = new Map();
let next = 1;

// The first broker of a process has the system wait for all threads, which another one may do.
native.warm();

// Called once for as many as are ready.
const hub = new native.Hub(() => {
  for (const number of hub.take()) waiters.get(number)?.onReady();
}, scratch);

/** A number that no waiter has. */
function newNumber() {
  do {
    next = (next % 0xffff_fff0) + 1;
  } while (waiters.has(next));
  return next;
}

// While something is awaited the process lives: a timer that never comes holds it, and holds
// nothing else. The thread-safe function is weak.
let holds = 0;
let timer;

function hold() {
  holds += 1;
  if (holds > 1) return;
  timer ??= setInterval(() => {}, 0x7fff_ffff);
  timer.ref();
}

function letGo() {
  holds -= 1;
  if (holds === 0) timer.unref();
}

/** One reason to stay alive, taken and given back any number of times. */
class Hold {
  #isWanted = true;
  #isHeld = false;

  take() {
    if (this.#isHeld || !this.#isWanted) return;
    this.#isHeld = true;
    hold();
  }

  release() {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    letGo();
  }

  /** Says whether `take` holds; `isBusy`: whether there is a reason now. */
  want(isWanted, isBusy) {
    this.#isWanted = isWanted;
    if (!isWanted) this.release();
    else if (isBusy) this.take();
  }
}

module.exports = { Hold, hub, native, newNumber, scratch, waiters };
