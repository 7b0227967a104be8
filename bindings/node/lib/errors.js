'use strict';
// One error class, whose code is the C name of a status and whose message is the same sentence as
// in C.

const { native } = require('./hub.js');

const codes = new Map();
const numbers = new Map();
const texts = new Map();
for (const { number, name, text } of native.statuses()) {
  codes.set(number, name);
  numbers.set(name, number);
  texts.set(name, text);
}

/** The C name of a status, such as 'FASTMQ_TIMEOUT'. */
function codeOf(status) {
  return codes.get(status) ?? 'FASTMQ_UNKNOWN';
}

class FastmqError extends Error {
  constructor(code, message, options) {
    super(message ?? texts.get(code) ?? code, options);
    this.code = code;
  }

  /** The number of the status in C. */
  get status() {
    return numbers.get(this.code) ?? 0;
  }
}
Object.defineProperty(FastmqError.prototype, 'name', {
  value: 'FastmqError', writable: true, configurable: true,
});

/** A time-out, named as that of AbortSignal.timeout. */
class TimeoutError extends FastmqError {
  constructor(message, options) {
    super('FASTMQ_TIMEOUT', message, options);
  }
}
Object.defineProperty(TimeoutError.prototype, 'name', { value: 'TimeoutError' });

/** What an AbortSignal has ended; its cause is the signal's reason. */
class AbortError extends FastmqError {
  constructor(reason) {
    super('FASTMQ_CANCELLED', 'the operation was aborted', { cause: reason });
  }
}
Object.defineProperty(AbortError.prototype, 'name', { value: 'AbortError' });

/** An error with this code. */
function errorOf(code, message, options) {
  return code === 'FASTMQ_TIMEOUT'
    ? new TimeoutError(message ?? texts.get(code), options)
    : new FastmqError(code, message, options);
}

/** The error of a status that a native call has just returned. */
function failure(status) {
  return errorOf(codeOf(status), native.lastError());
}

/** Throws unless `status` is 0. */
function check(status) {
  if (status !== 0) throw failure(status);
}

/** Calls what throws native errors, and throws them as ours. */
function call(body) {
  try {
    return body();
  } catch (error) {
    throw translate(error);
  }
}

function translate(error) {
  if (error instanceof FastmqError) return error;
  if (numbers.has(error?.code)) return errorOf(error.code, error.message);
  // What napi says of an argument that has not the type it should have.
  if (error?.code === 'InvalidArg') return new FastmqError('FASTMQ_INVALID', error.message);
  return error;
}

/** Throws what a task on another thread has failed with. */
function checkTask(outcome) {
  if (outcome?.text !== undefined) throw errorOf(codeOf(outcome.status), outcome.text);
  return outcome;
}

function invalid(message) {
  return new FastmqError('FASTMQ_INVALID', message);
}

function misuse(message) {
  return new FastmqError('FASTMQ_MISUSE', message);
}

module.exports = {
  AbortError, FastmqError, TimeoutError, call, check, checkTask, codeOf, errorOf, failure, invalid,
  misuse, numbers, texts,
};
