'use strict';
// Subjects and payloads on their way in.
//
// Small ones are written into the scratch, which the native half reads: an object that crosses the
// border costs more than its bytes.

const { invalid } = require('./errors.js');
const { scratch } = require('./hub.js');

/** Above it a payload is handed over as it is. */
const SMALL_BYTES = 4096;
const EMPTY = Buffer.alloc(0);
/** Below it a loop is faster than a call into the runtime. */
const LOOP_BYTES = 48;

/** A payload of any accepted type as bytes, without a copy where it has some. */
function bytesOf(value, what) {
  if (typeof value === 'string') return Buffer.from(value, 'utf8');
  if (value instanceof Uint8Array) {
    return isShared(value.buffer) ? Buffer.from(value) : value;
  }
  if (ArrayBuffer.isView(value)) {
    return bytesOf(new Uint8Array(value.buffer, value.byteOffset, value.byteLength), what);
  }
  if (value instanceof ArrayBuffer || isShared(value)) {
    // One that was detached has no bytes, and no view is made of it.
    return value.byteLength === 0 ? EMPTY : bytesOf(new Uint8Array(value), what);
  }
  if (value === undefined || value === null) return EMPTY;
  throw invalid(`${what} is ${describe(value)}; a string, a Buffer, a typed array, a DataView or `
    + 'an ArrayBuffer');
}

// Other threads may write to shared memory while the library reads it: that is copied first.
function isShared(value) {
  return typeof SharedArrayBuffer !== 'undefined' && value instanceof SharedArrayBuffer;
}

function describe(value) {
  if (value === null || value === undefined) return String(value);
  const isObject = typeof value === 'object';
  const type = isObject ? value.constructor?.name ?? 'null-prototype object' : typeof value;
  return `${/^[aeiou]/i.test(type) ? 'an' : 'a'} ${type}`;
}

/** A subject, pattern or name, checked. */
function textOf(value, what) {
  if (typeof value !== 'string') throw invalid(`${what} is ${describe(value)}; a string`);
  return value;
}

/** Writes a text into the scratch, or elsewhere; its size, or -1 if it may be too large. */
function putText(text, at, to = scratch) {
  const size = text.length;
  if (size * 3 > SMALL_BYTES || at + size * 3 > to.length) return -1;
  if (size <= LOOP_BYTES) {
    for (let index = 0; index < size; index += 1) {
      const code = text.charCodeAt(index);
      if (code > 127) return to.utf8Write(text, at);
      to[at + index] = code;
    }
    return size;
  }
  return to.utf8Write(text, at);
}

/**
 * Writes a payload into the scratch, or elsewhere; its size, or -1 if it is to be handed over as it
 * is.
 */
function putPayload(payload, at, to = scratch) {
  if (typeof payload === 'string') return putText(payload, at, to);
  if (payload instanceof Uint8Array) {
    const size = payload.length;
    if (size > SMALL_BYTES || at + size > to.length) return -1;
    if (size <= LOOP_BYTES) {
      for (let index = 0; index < size; index += 1) to[at + index] = payload[index];
    } else {
      to.set(payload, at);
    }
    return size;
  }
  return payload === undefined ? 0 : -1;
}

module.exports = {
  EMPTY, SMALL_BYTES, bytesOf, describe, isShared, putPayload, putText, textOf,
};
