'use strict';
// FAST MQ for Node: what the package is. `index.mjs` gives the same to `import`.

const { Batch, Message } = require('./lib/batch.js');
const { Client } = require('./lib/client.js');
const { AbortError, FastmqError, TimeoutError } = require('./lib/errors.js');
const { Headers } = require('./lib/headers.js');
const { native } = require('./lib/hub.js');
const { setLog } = require('./lib/log.js');
const { Claim, Publisher } = require('./lib/publisher.js');
const { Queue, Subscription } = require('./lib/queue.js');
const { Requester } = require('./lib/requester.js');
const { ReplyStream } = require('./lib/responder.js');
const { Server } = require('./lib/server.js');

module.exports = {
  AbortError,
  Batch,
  Claim,
  Client,
  FastmqError,
  HEADER_BROKEN: 'Broken',
  HEADER_CLIENT: 'Client',
  HEADER_SUBSCRIPTION: 'Subscription',
  Headers,
  Message,
  Publisher,
  Queue,
  ReplyStream,
  Requester,
  SUBJECT_CONNECTED: '$SYS.CONNECTED',
  SUBJECT_DISCONNECTED: '$SYS.DISCONNECTED',
  SUBJECT_JOINED: '$SYS.JOINED',
  SUBJECT_LEFT: '$SYS.LEFT',
  SUBJECT_STATS: '$SYS.SERVER.STATS',
  Server,
  Subscription,
  TimeoutError,
  abi: native.abi(),
  attach: Client.attach,
  connect: Client.connect,
  open: Client.open,
  setLog,
  version: native.version(),
};
