'use strict';
// Options: what a user writes, checked and turned into what the native half takes.

const { describe, textOf, bytesOf } = require('./bytes.js');
const { invalid } = require('./errors.js');

const POLICIES = ['backpressure', 'dropOldest', 'dropNewest', 'latest'];
const WAITS = ['balanced', 'latency', 'lowPower', 'busyPoll'];
const GROUP_MODES = ['balanced', 'keyShared'];
const TIMESTAMPS = ['none', 'clock', 'tsc'];
const LEVELS = ['off', 'error', 'warn', 'info', 'debug'];
const MEMORY = ['prefault', 'lock', 'hugePages'];

/** Checks an options object and the names in it: a misspelt option is an error. */
function known(options, names, what) {
  if (options === undefined) return {};
  if (options === null || typeof options !== 'object') {
    throw invalid(`the ${what} options are ${describe(options)}; an object`);
  }
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      throw invalid(`${name} is no ${what} option; there are ${names.join(', ')}`);
    }
  }
  return options;
}

/** The place of a word in its list. */
function wordOf(value, words, name) {
  if (value === undefined) return undefined;
  const place = words.indexOf(value);
  if (place < 0) {
    const found = typeof value === 'string' ? JSON.stringify(value) : describe(value);
    throw invalid(`${name} is ${found}; ${words.join(', ')}`);
  }
  return place;
}

/** A time in milliseconds; Infinity is for ever. */
function timeOf(value, name) {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !(value >= 0)) {
    throw invalid(`${name} is ${typeof value === 'number' ? value : describe(value)}; a time in `
      + 'milliseconds, 0 or more');
  }
  return value;
}

/** A number without fraction from 0 to `max`. */
function countOf(value, name, max = Number.MAX_SAFE_INTEGER) {
  if (value === undefined) return undefined;
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw invalid(`${name} is ${typeof value === 'number' ? value : describe(value)}; an integer `
      + `from 0 to ${max}`);
  }
  return value;
}

/** A count of 32 bits. */
function smallOf(value, name) {
  return countOf(value, name, 0xffff_ffff);
}

function isSet(value, name) {
  if (value === undefined || typeof value === 'boolean') return value;
  throw invalid(`${name} is ${describe(value)}; true or false`);
}

function functionOf(value, name) {
  if (value === undefined || typeof value === 'function') return value;
  throw invalid(`${name} is ${describe(value)}; a function`);
}

function signalOf(value) {
  const isSignal = typeof value?.addEventListener === 'function' && 'aborted' in value;
  if (value === undefined || isSignal) return value;
  throw invalid(`signal is ${describe(value)}; an AbortSignal`);
}

/** URLs as the library takes them: with commas between them. */
function urlsOf(urls) {
  return (Array.isArray(urls) ? urls : [urls]).map((url) => textOf(url, 'url')).join(',');
}

/** Leaves out what is undefined: the native half has the defaults. */
function given(object) {
  for (const name of Object.keys(object)) if (object[name] === undefined) delete object[name];
  return object;
}

const CLIENT = ['memoryMax', 'queueCapacity', 'payloadMax', 'wait', 'closeTimeout', 'timestamps',
  'memory'];
const CONNECT = [...CLIENT, 'name', 'token', 'connectTimeout', 'operationTimeout', 'storeMax',
  'backoffMin', 'backoffMax', 'later', 'unconfirmed', 'polled', 'onEvent'];

function clientChoices(options) {
  let memory;
  if (options.memory !== undefined && !Array.isArray(options.memory)) {
    throw invalid(`memory is ${describe(options.memory)}; an array of ${MEMORY.join(', ')}`);
  }
  for (const word of options.memory ?? []) {
    memory |= 1 << wordOf(word, MEMORY, 'memory');
  }
  return given({
    memoryMax: countOf(options.memoryMax, 'memoryMax'),
    // 0 is the default of the library, as in C.
    queueCapacity: countOf(options.queueCapacity, 'queueCapacity') || undefined,
    payloadMax: countOf(options.payloadMax, 'payloadMax') || undefined,
    wait: wordOf(options.wait, WAITS, 'wait'),
    closeTimeout: timeOf(options.closeTimeout, 'closeTimeout'),
    timestamps: wordOf(options.timestamps, TIMESTAMPS, 'timestamps'),
    memory,
  });
}

function openChoices(options) {
  return clientChoices(known(options, CLIENT, 'open'));
}

function connectChoices(options) {
  const from = known(options, CONNECT, 'connect');
  functionOf(from.onEvent, 'onEvent');
  return given({
    client: clientChoices(from),
    name: from.name === undefined ? undefined : textOf(from.name, 'name'),
    token: from.token === undefined ? undefined : Buffer.from(bytesOf(from.token, 'token')),
    connectTimeout: isSet(from.later, 'later') ? 0 : timeOf(from.connectTimeout, 'connectTimeout'),
    operationTimeout: isSet(from.unconfirmed, 'unconfirmed')
      ? 0 : timeOf(from.operationTimeout, 'operationTimeout'),
    storeMax: countOf(from.storeMax, 'storeMax'),
    backoffMin: timeOf(from.backoffMin, 'backoffMin'),
    backoffMax: timeOf(from.backoffMax, 'backoffMax'),
    polled: isSet(from.polled, 'polled'),
  });
}

function queueChoices(options) {
  const from = known(options, ['policy', 'capacity', 'wait'], 'queue');
  return given({
    policy: wordOf(from.policy, POLICIES, 'policy'),
    capacity: countOf(from.capacity, 'capacity'),
    wait: wordOf(from.wait, WAITS, 'wait'),
  });
}

const SUBSCRIBE = ['group', 'groupMode', 'weight', 'queue', 'policy', 'replayLast', 'tag', 'max',
  'onError'];

function subscribeChoices(from) {
  const mode = wordOf(from.groupMode, GROUP_MODES, 'groupMode');
  return given({
    group: from.group === undefined ? undefined : textOf(from.group, 'group'),
    isKeyShared: mode === undefined ? undefined : mode === 1,
    weight: smallOf(from.weight, 'weight'),
    policy: wordOf(from.policy, POLICIES, 'policy'),
    replayLast: isSet(from.replayLast, 'replayLast'),
    tag: countOf(from.tag, 'tag'),
  });
}

function listenChoices(options) {
  const from = known(options, ['token', 'name', 'insecure', 'shards', 'connectionsMax',
    'subscriptionsMax', 'wait', 'servers'], 'listen');
  return given({
    token: from.token === undefined ? undefined : Buffer.from(bytesOf(from.token, 'token')),
    name: from.name === undefined ? undefined : textOf(from.name, 'name'),
    servers: from.servers === undefined ? undefined : urlsOf(from.servers),
    insecure: isSet(from.insecure, 'insecure'),
    // 0 is the default of the library, as in C.
    shards: smallOf(from.shards, 'shards') || undefined,
    connectionsMax: smallOf(from.connectionsMax, 'connectionsMax') || undefined,
    subscriptionsMax: smallOf(from.subscriptionsMax, 'subscriptionsMax') || undefined,
    wait: wordOf(from.wait, WAITS, 'wait'),
  });
}

/** Default of what waits for an answer, in milliseconds. */
const TIMEOUT_MS = 5000;

module.exports = {
  LEVELS, SUBSCRIBE, TIMEOUT_MS, connectChoices, countOf, functionOf, isSet, known, listenChoices,
  openChoices, queueChoices, signalOf, smallOf, subscribeChoices, timeOf, urlsOf, wordOf,
};
