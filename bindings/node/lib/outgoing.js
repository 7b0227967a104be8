'use strict';
// The fields of a message beside its subject and payload.

const { EMPTY, bytesOf, textOf } = require('./bytes.js');
const { Headers } = require('./headers.js');
const { isSet, timeOf } = require('./options.js');

const FIELDS = ['replyTo', 'key', 'headers', 'ttl', 'keepLast'];

/** Key, encoded headers and the rest, as the native half takes them. */
function outgoing(options) {
  return {
    key: options.key === undefined ? EMPTY : bytesOf(options.key, 'key'),
    headers: Headers.encode(options.headers),
    rest: {
      replyTo: options.replyTo === undefined ? '' : textOf(options.replyTo, 'replyTo'),
      ttl: timeOf(options.ttl, 'ttl') ?? 0,
      keepLast: isSet(options.keepLast, 'keepLast') ?? false,
    },
  };
}

/** A payload that stays what it is, whatever happens to the memory that it came from. */
function lastingBytes(payload) {
  return typeof payload === 'string' ? payload : Buffer.from(bytesOf(payload, 'payload'));
}

/** The same of options. */
function lastingOptions(options) {
  if (options === undefined) return undefined;
  const lasting = { ...options };
  if (options.key !== undefined) lasting.key = Buffer.from(bytesOf(options.key, 'key'));
  if (options.headers !== undefined) lasting.headers = new Headers(options.headers);
  return lasting;
}

module.exports = { FIELDS, lastingBytes, lastingOptions, outgoing };
