'use strict';
// The log of the library.

const { functionOf, wordOf, LEVELS } = require('./options.js');
const { call, invalid } = require('./errors.js');
const { hub, native, newNumber, waiters } = require('./hub.js');
const { uncaught } = require('./queue.js');

let current = null;

function setLog(level, onLog) {
  const number = wordOf(level, LEVELS, 'level');
  if (number === undefined) throw invalid(`level is missing; ${LEVELS.join(', ')}`);
  functionOf(onLog, 'onLog');
  if (current !== null) {
    waiters.delete(current);
    current = null;
  }
  if (number === 0 || onLog === undefined) {
    native.clearLog();
    return;
  }
  const waiter = newNumber();
  const log = call(() => new native.NativeLog(hub, waiter, number));
  current = waiter;
  waiters.set(waiter, {
    onReady() {
      for (const { level: of, target, text } of log.take()) {
        try {
          onLog(LEVELS[of], target, text);
        } catch (error) {
          uncaught(error);
        }
      }
    },
  });
}

module.exports = { setLog };
