'use strict';
// Headers to send: their encoded form is the library's, made there.

const { EMPTY, bytesOf, describe, textOf } = require('./bytes.js');
const { call, invalid } = require('./errors.js');
const { native } = require('./hub.js');

class Headers {
  #pairs = [];
  #encoded = EMPTY;

  constructor(init) {
    if (init === undefined) return;
    for (const pair of pairsOf(init)) {
      if (!Array.isArray(pair)) throw invalid(`a header is ${describe(pair)}; a name and a value`);
      this.add(pair[0], pair[1]);
    }
  }

  add(name, value) {
    const pair = [Buffer.from(textOf(name, 'a header name')), bytesOf(value, 'a header value')];
    const pairs = [...this.#pairs, ...pair];
    this.#encoded = call(() => native.encodeHeaders(pairs));
    this.#pairs = pairs;
    return this;
  }

  clear() {
    this.#pairs = [];
    this.#encoded = EMPTY;
  }

  *[Symbol.iterator]() {
    for (let index = 0; index < this.#pairs.length; index += 2) {
      yield [this.#pairs[index].toString(), Buffer.from(this.#pairs[index + 1])];
    }
  }

  /** The encoded form of what a user gives as headers. */
  static encode(headers) {
    if (headers === undefined) return EMPTY;
    return (headers instanceof Headers ? headers : new Headers(headers)).#encoded;
  }
}

function pairsOf(init) {
  if (init !== null && typeof init === 'object') {
    return typeof init[Symbol.iterator] === 'function' ? init : Object.entries(init);
  }
  throw invalid(`headers are ${describe(init)}; Headers, an object or pairs`);
}

/** The headers of a received message, in their order. */
function decode(encoded) {
  const places = call(() => native.decodeHeaders(encoded));
  const headers = [];
  for (let index = 0; index < places.length; index += 4) {
    const [at, size, valueAt, valueSize] = places.slice(index, index + 4);
    headers.push([encoded.toString('utf8', at, at + size),
      encoded.subarray(valueAt, valueAt + valueSize)]);
  }
  return headers;
}

/** The first value with this name, or undefined. */
function find(encoded, name) {
  const place = call(() => native.findHeader(encoded, textOf(name, 'a header name')));
  return place.length === 0 ? undefined : encoded.subarray(place[0], place[0] + place[1]);
}

module.exports = { Headers, decode, find };
