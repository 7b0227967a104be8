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

module.exports = { FIELDS, outgoing };
