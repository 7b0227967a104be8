/**
 * FAST MQ for Node: a message queue in your process, in shared memory or behind a server.
 *
 * Times are in milliseconds (`Infinity`: for ever), sizes in bytes. What fails throws, or rejects
 * with, a {@link FastmqError}, whose `code` is the name of the status in C. Everything here is used
 * on the thread of JavaScript that made it; {@link Client.share} lets another one use the same
 * broker.
 *
 * What is awaited keeps the process alive, and so do a subscription with a callback, a responder
 * and a server that listens; `unref()` of each says that it shall not. Nothing else does.
 *
 * @packageDocumentation
 */

/// <reference types="node" />

/** The name of a status in C. */
export type Code =
  | 'FASTMQ_OK' | 'FASTMQ_AGAIN' | 'FASTMQ_TIMEOUT' | 'FASTMQ_END' | 'FASTMQ_CANCELLED'
  | 'FASTMQ_INVALID' | 'FASTMQ_MISUSE' | 'FASTMQ_TOO_LARGE' | 'FASTMQ_UNSUPPORTED'
  | 'FASTMQ_CLOSED' | 'FASTMQ_NOT_FOUND' | 'FASTMQ_EXISTS' | 'FASTMQ_NO_RESPONDER'
  | 'FASTMQ_BUSY' | 'FASTMQ_CONFLICT' | 'FASTMQ_UNAVAILABLE' | 'FASTMQ_DISCONNECTED'
  | 'FASTMQ_SLOW_CONSUMER' | 'FASTMQ_DENIED' | 'FASTMQ_NO_SPACE' | 'FASTMQ_CORRUPT'
  | 'FASTMQ_IO' | 'FASTMQ_NO_MEMORY' | 'FASTMQ_INTERNAL';

/**
 * What may be sent: bytes of any kind, or a string as UTF-8; nothing is an empty payload. The bytes
 * are copied before the call returns, so that they may be changed afterwards.
 */
export type Payload = string | NodeJS.ArrayBufferView | ArrayBufferLike | null | undefined;

/** What has failed. */
export class FastmqError extends Error {
  /** An error as the library has it; without a message the one of its code. */
  constructor(code: Code, message?: string, options?: ErrorOptions);
  /** The name of the status in C, such as `'FASTMQ_AGAIN'`. */
  readonly code: Code;
  /** Its number. */
  readonly status: number;
  /** Of a request: the answer, whose code is not FASTMQ_OK. */
  readonly reply?: Message;
  /** Of a batch: how many of its messages were accepted before the one that was refused. */
  readonly accepted?: number;
}

/** A time-out: `code` is `'FASTMQ_TIMEOUT'`, `name` that of the platform, `'TimeoutError'`. */
export class TimeoutError extends FastmqError {
  /** @param message What was waited for. */
  constructor(message?: string, options?: ErrorOptions);
}

/**
 * What an AbortSignal has ended: `code` is `'FASTMQ_CANCELLED'`, `name` `'AbortError'`, and `cause`
 * the reason of the signal.
 */
export class AbortError extends FastmqError {
  /** @param reason That of the signal; it becomes `cause`. */
  constructor(reason?: unknown);
}

/** What a queue does with messages for which there is no room, or which newer ones replace. */
export type Policy =
  /** The publish is refused with FASTMQ_AGAIN, and nobody gets the message. The default. */
  | 'backpressure'
  /** The oldest messages are dropped and counted. */
  | 'dropOldest'
  /** The new message is dropped and counted. */
  | 'dropNewest'
  /** Of each subject the newest message waits, and replaces one that nobody has received. */
  | 'latest';

/** How a reader waits that is no thread of JavaScript's; see `fastmq_wait` in C. */
export type Wait = 'balanced' | 'latency' | 'lowPower' | 'busyPoll';

/** How the members of a group share its messages: by load, or all of one key to one member. */
export type GroupMode = 'balanced' | 'keyShared';

/** Options of a broker in this process; what is left out, and 0, is the default. */
export interface OpenOptions {
  /** Cap on the bytes of queues and large messages; no cap by default. */
  memoryMax?: number;
  /** Capacity in bytes for what one publisher has waiting in one queue; 8 MiB. */
  queueCapacity?: number;
  /** Largest payload in bytes; 1 MiB, at most 64 MiB. */
  payloadMax?: number;
  /** How readers wait that are no threads of JavaScript's. */
  wait?: Wait;
  /** How long `close` waits for calls of other threads, in milliseconds; 5,000. */
  closeTimeout?: number;
  /** Where time stamps of messages and batches come from; `'none'`: there are none. */
  timestamps?: 'none' | 'clock' | 'tsc';
  /** What the memory of queues is; with any of these `memoryMax` bytes are taken at once. */
  memory?: Array<'prefault' | 'lock' | 'hugePages'>;
}

/** What has happened to the connection of a client; 0 and empty where the kind names no field. */
export interface ConnectionEvent {
  /**
   * - `connected`: to `server`; `count` subscriptions were asked for again.
   * - `disconnected`: `code` and `detail` say why; `count` accepted publishes are lost. The client
   *   tries again by itself; the last event of a closed client is this one, with FASTMQ_CLOSED.
   * - `refused`: the server has refused a publish to `subject`.
   * - `unsubscribed`: the server refuses the subscription `subscriptionId`, which it had taken.
   * - `gap`: `count` messages of `subscriptionId` were lost at the server.
   * - `slow`: the server has to keep `count` bytes for this client, which reads too slowly.
   * - `draining`: the server will close.
   * - `limit`: the server will refuse something soon: `detail`.
   */
  kind: 'connected' | 'disconnected' | 'refused' | 'unsubscribed' | 'gap' | 'slow' | 'draining'
    | 'limit';
  /** Connected, and not for the first time: what was published elsewhere meanwhile is missing. */
  isAgain: boolean;
  /** Connected to another server than before, or to one that was restarted. */
  isOtherInstance: boolean;
  /** Why. */
  code: Code;
  /** Which subscription. */
  subscriptionId: number;
  /** How many. */
  count: number;
  /** What the server is called. */
  server: string;
  /** The subject of a message. */
  subject: string;
  /** Why, as a sentence. */
  detail: string;
}

/** How a client connects. */
export interface ConnectOptions extends OpenOptions {
  /** What the client is called, at most 255 bytes. */
  name?: string;
  /** The secret that the server asks for, at most 4,096 bytes. */
  token?: string | Uint8Array;
  /** How long to wait for a connection, in milliseconds; 5,000. */
  connectTimeout?: number;
  /** How long `subscribe` waits for the server's answer, in milliseconds; 5,000. */
  operationTimeout?: number;
  /** Bytes of publishes that wait while there is no connection; 1 MiB. */
  storeMax?: number;
  /** The shortest pause before the servers are tried again, in milliseconds; 20. */
  backoffMin?: number;
  /** The longest; 5,000. */
  backoffMax?: number;
  /** Does not wait for a connection, and does not fail for want of one. */
  later?: boolean;
  /** `subscribe` does not wait for the server's answer; a refusal is an event. */
  unconfirmed?: boolean;
  /**
   * The event loop of Node drives the connection, and no thread of the library: one thread less and
   * one wake-up less for each message, as long as nothing blocks the loop for seconds. What is
   * published goes out when the loop turns. Close such a client.
   */
  polled?: boolean;
  /** Is told what happens to the connection; of 1,024 events that wait the oldest are dropped. */
  onEvent?: (event: ConnectionEvent) => void;
}

/** Headers as they may be given. */
export type HeadersInit =
  | Headers
  | Record<string, Payload>
  | Iterable<readonly [name: string, value: Payload]>;

/** Headers to send, encoded once for any number of messages. A name may stand several times. */
export class Headers implements Iterable<[name: string, value: Buffer]> {
  /** @throws FASTMQ_INVALID: a name is empty or too long. FASTMQ_TOO_LARGE: 64 KiB in all. */
  constructor(init?: HeadersInit);
  /** Adds a header at the end. */
  add(name: string, value: Payload): this;
  /** Removes all. */
  clear(): void;
  /** The headers in their order, with copies of their values. */
  [Symbol.iterator](): IterableIterator<[name: string, value: Buffer]>;
}

/** Fields of a message beside its subject and payload. */
export interface PublishOptions {
  /** A subject where an answer may be published. */
  replyTo?: string;
  /** What keeps messages of one kind in order in key-shared groups. */
  key?: Payload;
  /** Headers. */
  headers?: HeadersInit;
  /** How long it is worth delivering, in milliseconds; for ever by default. */
  ttl?: number;
  /** It becomes the last value of its subject: see `replayLast`. Not for requests. */
  keepLast?: boolean;
}

/** What a wait takes. */
export interface WaitOptions {
  /** How long to wait, in milliseconds. Rejects with a {@link TimeoutError} then. */
  timeout?: number;
  /** Ends the wait, which rejects with an {@link AbortError}. */
  signal?: AbortSignal;
}

/** A received message, or an answer. It stays readable for as long as you hold it. */
export class Message {
  private constructor();
  /** The subject; empty for an answer. */
  readonly subject: string;
  /** The payload, without a copy: whoever writes to it changes what this message shows. */
  readonly payload: Buffer;
  /** The size of the payload in bytes. */
  readonly size: number;
  /** The payload as UTF-8. */
  text(): string;
  /** The payload as JSON. @throws SyntaxError */
  json(): unknown;
  /** Where an answer may be published; empty: nowhere. */
  readonly replyTo: string;
  /** The key; empty: none. */
  readonly key: Buffer;
  /** All headers, in their order. */
  readonly headers: Array<[name: string, value: Buffer]>;
  /** The first header with this name, compared without ASCII case. */
  header(name: string): Buffer | undefined;
  /** The publisher's sequence, from 1 on; 0: published without a publisher. */
  readonly sequence: number;
  /** Unix nanoseconds of the publish; 0: the publisher has no time stamps. */
  readonly timestampNs: bigint;
  /** Names the request to answer; 0: none. */
  readonly token: bigint;
  /** 1 on the first delivery. */
  readonly deliveryCount: number;
  /** Messages dropped by its queue since the previous one. */
  readonly lostBefore: number;
  /** Of an answer: the number of its status. */
  readonly status: number;
  /** The name of that status. */
  readonly code: Code;
  /** The subscription that this came by; of one of several answers, the responder's. */
  readonly subscriptionId: number;
  /** Delivered before. */
  readonly isRedelivered: boolean;
  /** An answer is expected. */
  readonly isRequest: boolean;
  /** More answers follow. */
  readonly hasMore: boolean;
  /** The last of several answers. */
  readonly isEnd: boolean;
  /** The number given at subscribe. */
  readonly tag: number;
  /** Names the publisher that counts `sequence`; 0: none. */
  readonly publisher: bigint;
  /**
   * Answers the request that this is.
   *
   * @throws FASTMQ_NOT_FOUND: the asker is gone. FASTMQ_INVALID: this is no request.
   * FASTMQ_AGAIN: the asker has no room. FASTMQ_TOO_LARGE, FASTMQ_CLOSED.
   */
  reply(payload?: Payload, options?: ReplyOptions): void;
}

/** How a request is answered. */
export interface ReplyOptions {
  /** Headers. */
  headers?: HeadersInit;
  /** What is said of the answer; FASTMQ_OK by default. Every other one rejects the request. */
  code?: Code;
}

/**
 * Messages that were received together, in the order in which they are to be handled. They are
 * copies, which stay readable.
 *
 * A batch is open until it is closed or its queue is received from again: until then its messages
 * count as being handled, and their keys stay with this member of a key-shared group.
 */
export class Batch implements Iterable<Message>, Disposable {
  private constructor();
  /** How many. */
  readonly length: number;
  /** One message; from the end with a negative index. */
  at(index: number): Message | undefined;
  /** All of them. */
  readonly messages: Message[];
  /** When it was received in Unix nanoseconds; 0: the client has no time stamps. */
  readonly timeNs: bigint;
  /** Says that its messages were handled. */
  close(): void;
  /** Over its messages, in their order. */
  [Symbol.iterator](): IterableIterator<Message>;
  /** As `close`, for `using`. */
  [Symbol.dispose](): void;
}

/** Options of a queue. */
export interface QueueOptions {
  /** What happens when there is no room. */
  policy?: Policy;
  /** Capacity in bytes for what one publisher has waiting; that of the client by default. */
  capacity?: number;
  /** How a reader waits that is no thread of JavaScript's. */
  wait?: Wait;
}

/** How to receive. */
export interface ReceiveOptions extends WaitOptions {
  /** Messages of the batch at most; 1,024. 0: as many as a batch holds, 4,096. */
  max?: number;
}

/** What both queues and subscriptions can do. */
export interface Receiver extends AsyncIterable<Message>, Disposable {
  /**
   * Receives a batch, waiting for its first message. One receive of a queue waits at a time.
   *
   * @throws FASTMQ_TIMEOUT, FASTMQ_CANCELLED (the signal). FASTMQ_AGAIN: nothing is there, and the
   * time-out is 0. FASTMQ_CLOSED: the queue or its client was closed. FASTMQ_END: the client was
   * drained. FASTMQ_MISUSE: another receive waits, or another thread receives.
   */
  receive(options?: ReceiveOptions): Promise<Batch>;
  /** Receives what is there now; null: nothing. Throws as `receive`. */
  tryReceive(max?: number): Batch | null;
  /**
   * Iterates over batches, for whoever handles many messages a second. A batch is taken when it is
   * asked for, so a slow loop leaves messages in the queue. Ends when the queue is closed or
   * drained.
   */
  batches(options?: { max?: number; signal?: AbortSignal }): AsyncIterableIterator<Batch>;
  /**
   * Iterates over messages. Leaving the loop loses none: the next loop goes on behind the last
   * message that was given.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
}

/** Figures of a queue since it was opened. */
export interface QueueStatistics {
  /** Rings that exist now, one for each publisher. */
  lanes: number;
  /** Messages written; those dropped at the door not counted. */
  published: number;
  /** Messages given to the reader. */
  delivered: number;
  /** Messages dropped by the policy. */
  dropped: number;
  /** Messages that expired unread. */
  expired: number;
  /** Messages that wait or are in an open batch. */
  pending: number;
  /** Their bytes. */
  pendingBytes: number;
  /** The most bytes that the reader has seen waiting. */
  highWaterBytes: number;
  /** Locks taken. */
  locks: number;
  /** Times that a reader slept. */
  waits: number;
  /** Times that it was woken. */
  wakes: number;
  /** Messages of a latest queue that newer ones have replaced unread. */
  replaced: number;
}

/** A place where messages wait until they are received. */
export class Queue implements Receiver {
  private constructor();
  /** As {@link Receiver.receive}. */
  receive(options?: ReceiveOptions): Promise<Batch>;
  /** As {@link Receiver.tryReceive}. */
  tryReceive(max?: number): Batch | null;
  /** As {@link Receiver.batches}. */
  batches(options?: { max?: number; signal?: AbortSignal }): AsyncIterableIterator<Batch>;
  /** Over messages, as {@link Receiver}. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
  /** Figures of this queue. @throws FASTMQ_CLOSED */
  statistics(): QueueStatistics;
  /**
   * A descriptor for another event loop: readable exactly while there is something to receive. It
   * is the library's: only wait on it. Once asked for, each message signals it.
   */
  readonly fd: number;
  /** A receive that waits keeps the process alive; the default. */
  ref(): this;
  /** A receive that waits does not keep the process alive. */
  unref(): this;
  /** Ends the queue and the subscriptions that feed it. Any number of times. */
  close(): void;
  /** As `close`, for `using`. */
  [Symbol.dispose](): void;
}

/** How to subscribe; the default is a queue of its own and no group. */
export interface SubscribeOptions {
  /** Members of a group share its messages. */
  group?: string;
  /** How they do; the same for all members. */
  groupMode?: GroupMode;
  /** This member's part beside that of the others, at most 1,000; 1. */
  weight?: number;
  /** Where messages wait, together with those of other subscriptions. */
  queue?: Queue;
  /** What happens when a queue of its own is full. */
  policy?: Policy;
  /** Of each matching subject the last value comes first, if its publisher keeps it. */
  replayLast?: boolean;
  /** Comes back with each message; a safe integer. */
  tag?: number;
}

/** How to subscribe with a callback. */
export interface CallbackOptions extends Omit<SubscribeOptions, 'queue'> {
  /**
   * Calls whose promises have not settled, at most 4,096; 1,024. With so many under way no message
   * is taken: those that come wait in the queue, and are refused or dropped, as its policy says,
   * when that is full. 1: one call after the other.
   */
  max?: number;
  /**
   * Gets what a callback throws or rejects with, and the message. Without it the error of a
   * subscription's callback is an uncaught exception of the process; a responder's is told to the
   * asker in either case.
   */
  onError?: (error: unknown, message?: Message) => void;
}

/** A pattern and where its messages go. One that is collected as garbage is ended. */
export class Subscription implements Receiver, AsyncDisposable {
  private constructor();
  /** The pattern. */
  readonly pattern: string;
  /** The number that its messages carry as `subscriptionId`. */
  readonly id: number;
  /** The queue that it feeds. */
  readonly queue: Queue;
  /** As {@link Receiver.receive}, of its queue. */
  receive(options?: ReceiveOptions): Promise<Batch>;
  /** As {@link Receiver.tryReceive}, of its queue. */
  tryReceive(max?: number): Batch | null;
  /** As {@link Receiver.batches}, of its queue. */
  batches(options?: { max?: number; signal?: AbortSignal }): AsyncIterableIterator<Batch>;
  /** Over messages of its queue, as {@link Receiver}. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
  /** Settles when the subscription has ended and its last callback has settled. */
  readonly done: Promise<void>;
  /** Figures since it was made; 0 once it has ended. */
  statistics(): { id: number; delivered: number; dropped: number };
  /** As {@link Queue.ref}, of its queue. */
  ref(): this;
  /** As {@link Queue.unref}, of its queue. */
  unref(): this;
  /** Ends it, and its queue if it has one of its own. Any number of times. */
  unsubscribe(): void;
  /** The same. */
  close(): void;
  /** As `unsubscribe`, for `using`. */
  [Symbol.dispose](): void;
  /** The same, and settles with `done`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Room for one payload, written in place and committed. */
export class Claim implements Disposable {
  private constructor();
  /**
   * The bytes to write, zeros at first. They are the library's memory: when the claim ends they
   * are taken away, and this Buffer is empty.
   */
  readonly bytes: Buffer;
  /** Neither committed nor abandoned. */
  readonly isOpen: boolean;
  /**
   * Publishes the first `size` bytes, all by default. What is refused is gone.
   *
   * @throws As {@link Publisher.publish}. FASTMQ_MISUSE: the claim has ended, or its bytes were
   * transferred to another thread.
   */
  commit(size?: number): void;
  /** Gives it back unpublished. Any number of times. */
  abandon(): void;
  /** As `abandon`, for `using`: one that was committed stays so. */
  [Symbol.dispose](): void;
}

/** One subject to publish to: the fastest way. Its messages are numbered. */
export class Publisher implements Disposable {
  private constructor();
  /** The subject. */
  readonly subject: string;
  /**
   * Publishes one message.
   *
   * @throws FASTMQ_AGAIN: a queue is full, and nobody got it. FASTMQ_INVALID, FASTMQ_TOO_LARGE,
   * FASTMQ_NO_SPACE, FASTMQ_NO_MEMORY, FASTMQ_CLOSED. FASTMQ_MISUSE: a claim is open, or the
   * publisher is closed.
   */
  publish(payload?: Payload, options?: PublishOptions): void;
  /** The same, but false instead of FASTMQ_AGAIN. */
  tryPublish(payload?: Payload, options?: PublishOptions): boolean;
  /** The same, waiting for room. What one publisher waits for keeps its order. */
  publishWait(payload?: Payload, options?: PublishOptions & WaitOptions): Promise<void>;
  /**
   * Publishes payloads in order, up to the first that is refused for want of room; gives how many
   * were published. Another refusal is thrown, with that number as `accepted`.
   */
  publishBatch(payloads: Iterable<Payload>): number;
  /**
   * The same for payloads that stand in `data` one behind the other: the one with index i from
   * `offsets[i]` to `offsets[i + 1]`. The fastest way for many.
   */
  publishColumns(data: Uint8Array, offsets: Uint32Array): number;
  /**
   * Claims room for a payload of at most `size` bytes, to be written in place. Nothing else is
   * published by it meanwhile.
   *
   * @throws FASTMQ_AGAIN, FASTMQ_TOO_LARGE, FASTMQ_NO_SPACE, FASTMQ_NO_MEMORY, FASTMQ_CLOSED.
   * FASTMQ_MISUSE: a claim is open.
   */
  claim(size: number): Claim;
  /** Closes it; an open claim is abandoned. Any number of times. */
  close(): void;
  /** As `close`, for `using`. */
  [Symbol.dispose](): void;
}

/** How to ask. */
export interface RequestOptions extends Omit<PublishOptions, 'keepLast'>, WaitOptions {
  /** How long to wait for the answer, in milliseconds; 5,000. */
  timeout?: number;
}

/** How to ask for several answers. */
export interface RequestManyOptions extends RequestOptions {
  /** How many responders' answers; `Infinity`: of all that get the request. */
  answersMax?: number;
  /** The longest pause between two answers, in milliseconds; any by default. */
  gap?: number;
}

/** How to ask for a stream of replies. */
export interface RequestStreamOptions extends RequestManyOptions {
  /** Replies that a responder may send before the first is taken, at most 1,048,576; 64. */
  credit?: number;
}

/** Several answers, and why there are not more. */
export interface Answers extends Array<Message> {
  /** FASTMQ_OK: all that were asked for. FASTMQ_TIMEOUT; FASTMQ_END: the others are gone. */
  readonly code: Code;
}

/** Answers in the order in which they come. Leaving the loop ends the request. */
export interface AnswerIterator extends AsyncIterableIterator<Message>, AsyncDisposable {
  /**
   * The next answer, or `done`: there are no more. One `next` waits at a time.
   *
   * @throws As {@link Client.request}. FASTMQ_MISUSE: another one waits.
   */
  next(): Promise<IteratorResult<Message, undefined>>;
  /** Cancels the request: its responders hear of it. Any number of times. */
  return(value?: unknown): Promise<IteratorResult<Message, undefined>>;
  /** Itself. */
  [Symbol.asyncIterator](): AnswerIterator;
}

/** What a requester is opened with. */
export interface RequesterOptions {
  /** The subject of every request; without it each names its own, by `requestTo`. */
  subject?: string;
  /** Requests in flight at most; 1,024, at most 65,535. */
  inFlightMax?: number;
}

/** Many requests in flight, the fastest way to ask. */
export class Requester implements Disposable {
  private constructor();
  /** Its subject; empty: none. */
  readonly subject: string;
  /** Requests that have no answer yet. */
  readonly inFlight: number;
  /** As {@link Client.request}, to its own subject. */
  request(payload?: Payload, options?: RequestOptions): Promise<Message>;
  /** The same to another subject. */
  requestTo(subject: string, payload?: Payload, options?: RequestOptions): Promise<Message>;
  /**
   * Asks its own subject once for each payload, with as many in flight as may be, and gives the
   * answers in the order of the payloads. An answer whose `code` is not FASTMQ_OK stands among
   * them; the promise rejects for what could not be sent. Payloads beyond `inFlightMax` are read
   * when answers have made room for them: leave those as they are until then.
   */
  requestBatch(payloads: Iterable<Payload>, options?: { timeout?: number }): Promise<Message[]>;
  /** As {@link Client.requestStream}, to its own subject. */
  requestStream(payload?: Payload, options?: RequestStreamOptions): AnswerIterator;
  /** Requests in flight keep the process alive; the default. */
  ref(): this;
  /** Requests in flight do not keep the process alive. */
  unref(): this;
  /** Closes it; requests in flight reject with FASTMQ_CANCELLED. Any number of times. */
  close(): void;
  /** As `close`, for `using`. */
  [Symbol.dispose](): void;
}

/** A responder's stream of replies to one request. */
export class ReplyStream implements Disposable, AsyncDisposable {
  private constructor();
  /** Replies that the asker has granted and that were not sent. @throws FASTMQ_CANCELLED */
  readonly credit: number;
  /** Sends one reply; false: the asker has granted no more, or has no room. Throws as `send`. */
  trySend(payload?: Payload, options?: { headers?: HeadersInit }): boolean;
  /**
   * Sends one reply, waiting until the asker takes it.
   *
   * @throws FASTMQ_CANCELLED: nobody waits for more. FASTMQ_MISUSE: the stream was ended.
   * FASTMQ_TIMEOUT, FASTMQ_TOO_LARGE, FASTMQ_CLOSED.
   */
  send(payload?: Payload, options?: { headers?: HeadersInit } & WaitOptions): Promise<void>;
  /** Ends it; a code other than FASTMQ_OK is an error for the asker. @throws FASTMQ_CANCELLED */
  end(code?: Code): void;
  /** Closes it; one that was not ended ends with FASTMQ_CANCELLED. Any number of times. */
  close(): void;
  /** As `close`, for `using`. */
  [Symbol.dispose](): void;
  /** The same, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Answers requests: what it returns, or resolves to, is the answer, and what an async iterator of
 * it gives is a stream of replies. What it throws is the answer's code (that of a
 * {@link FastmqError}, else FASTMQ_INTERNAL) and its message the answer's payload. One that has
 * called `message.reply` itself returns nothing.
 */
export type Handler = (request: Message) =>
  | Payload | Promise<Payload> | AsyncIterable<Payload> | Promise<AsyncIterable<Payload>>
  | void | Promise<void>;

/** How a broker listens. */
export interface ListenOptions {
  /** What clients must know, at most 4,096 bytes; nothing by default. */
  token?: string | Uint8Array;
  /** What the server is called, at most 255 bytes. */
  name?: string;
  /** It may listen at addresses that other machines reach, where its bytes can be read. */
  insecure?: boolean;
  /** Threads that serve connections, at most 64; 1. */
  shards?: number;
  /** Connections at once; 65,536. */
  connectionsMax?: number;
  /** Subscriptions of one connection; 4,096. */
  subscriptionsMax?: number;
  /** How its threads wait. */
  wait?: Wait;
  /**
   * Where else its clients may connect, at most 4,096 bytes in all. They are told when they connect
   * and when this server drains, and try those, too, when it is gone.
   */
  servers?: string | string[];
}

/** A broker that other processes use. It keeps the process alive until it is closed. */
export class Server implements Disposable, AsyncDisposable {
  private constructor();
  /** Where it listens, in the order in which it was asked. */
  readonly urls: string[];
  /** The first of them. */
  readonly url: string;
  /**
   * Takes over a token and a limit, for who connects and what is subscribed from now on; what is
   * left out is the default.
   *
   * @throws FASTMQ_INVALID: a token above 4,096 bytes. FASTMQ_MISUSE: the server is closed.
   */
  change(options: { token?: string | Uint8Array; subscriptionsMax?: number }): void;
  /** It keeps the process alive; the default. */
  ref(): this;
  /** It does not keep the process alive. */
  unref(): this;
  /**
   * Takes no more connections, asks the clients to finish, and settles when they have gone, or
   * after `timeout` milliseconds; at once by default.
   */
  close(options?: { timeout?: number }): Promise<void>;
  /** Closes it at once, for `using`. */
  [Symbol.dispose](): void;
  /** As `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Figures of a client since it was opened. */
export interface Statistics {
  /** Threads of the library that run now. */
  threads: number;
  /** Messages accepted from publishers; requests and answers not counted. */
  published: number;
  /** Messages, requests and answers given to readers. */
  delivered: number;
  /** Messages dropped by a queue's policy. */
  dropped: number;
  /** Messages that expired unread. */
  expired: number;
  /** Publishes refused for want of room or memory. */
  refused: number;
  /** Requests sent. */
  requests: number;
  /** Answers sent. */
  answers: number;
  /** Answers that came for a request that was over. */
  lateAnswers: number;
  /** Bytes of queues, large messages and last values now. */
  memory: number;
  /** The most there ever were. */
  memoryHigh: number;
  /** Queues that are open, those of requesters included. */
  queues: number;
  /** Subscriptions that are open. */
  subscriptions: number;
  /** Readings of the clock. */
  clockCalls: number;
  /** Locks taken. */
  locks: number;
  /** Times that a thread went to sleep. */
  parks: number;
  /** Wake-ups sent. */
  wakes: number;
  /** Last values that are kept now. */
  lastValues: number;
}

/** What is ready, as {@link Client.dispatch} says. */
export interface Ready {
  /** Messages wait in a queue. */
  messages: boolean;
  /** A requester has answers. */
  answers: boolean;
  /** A queue that refused a publish has room. */
  room: boolean;
  /** A deadline has passed. */
  deadline: boolean;
  /** The budget ended before the work. */
  more: boolean;
}

/** A message to publish by {@link Client.publishBatch}. */
export interface Outgoing extends PublishOptions {
  /** Where to. */
  subject: string;
  /** What. */
  payload?: Payload;
}

/** A broker in this process ({@link open}), or one of a server ({@link connect}). */
export class Client implements Disposable, AsyncDisposable {
  private constructor();

  /**
   * Publishes one message to every subscription whose pattern matches, and to one member of each
   * group. Does not wait.
   *
   * @throws FASTMQ_AGAIN: a queue is full, and nobody got it. FASTMQ_INVALID: no subject, or a
   * wrong type. FASTMQ_DENIED: the subject begins with $SYS. FASTMQ_TOO_LARGE, FASTMQ_NO_SPACE,
   * FASTMQ_NO_MEMORY, FASTMQ_CLOSED.
   */
  publish(subject: string, payload?: Payload, options?: PublishOptions): void;
  /** The same, but false instead of FASTMQ_AGAIN. */
  tryPublish(subject: string, payload?: Payload, options?: PublishOptions): boolean;
  /** The same, waiting for room. What a client waits for keeps its order. */
  publishWait(subject: string, payload?: Payload, options?: PublishOptions & WaitOptions):
    Promise<void>;
  /**
   * Publishes messages in order, up to the first that is refused for want of room; gives how many
   * were published. Another refusal is thrown, with that number as `accepted`.
   */
  publishBatch(messages: Iterable<Outgoing>): number;
  /** Opens a publisher for one subject. @throws FASTMQ_INVALID, FASTMQ_DENIED, FASTMQ_CLOSED */
  publisher(subject: string): Publisher;
  /** Forgets the last value of a subject. @throws FASTMQ_NOT_FOUND: none is kept. */
  forgetLast(subject: string): void;

  /** Opens a queue that several subscriptions may feed. @throws FASTMQ_INVALID, FASTMQ_CLOSED */
  queue(options?: QueueOptions): Queue;
  /**
   * Subscribes to every subject that matches `pattern` (`*`: one token, `>`: one or more, last).
   *
   * A client of a server waits for the server's answer here, for at most `operationTimeout`; with
   * `unconfirmed` it does not.
   *
   * @throws FASTMQ_INVALID, FASTMQ_CONFLICT (the group has another mode), FASTMQ_CLOSED,
   * FASTMQ_NO_MEMORY, FASTMQ_NO_SPACE; of a server's client also FASTMQ_DENIED, FASTMQ_UNAVAILABLE,
   * FASTMQ_TIMEOUT.
   */
  subscribe(pattern: string, options?: SubscribeOptions): Subscription;
  /**
   * Subscribes with a callback, which is called with each message in their order. Where it gives
   * promises, up to `max` calls are under way at once; a member of a key-shared group takes no
   * further batch before those of the last one have settled, so that a key stays in order.
   */
  subscribe(pattern: string, onMessage: (message: Message) => unknown): Subscription;
  /** The same with options. @throws As {@link subscribe} without a callback. */
  subscribe(pattern: string, options: CallbackOptions, onMessage: (message: Message) => unknown):
    Subscription;
  /**
   * Answers requests to subjects that match `pattern`. Give members of one service a `group`.
   *
   * Requests are answered side by side: up to `max` answers and streams are under way at once, and
   * a slow one holds up none of the others. What comes beyond that waits in the queue. Members of
   * a key-shared group are the exception, as in {@link subscribe}. Close it, or the client, to end
   * it.
   *
   * @throws As {@link subscribe}.
   */
  respond(pattern: string, handler: Handler): Subscription;
  /** The same with options. */
  respond(pattern: string, options: CallbackOptions, handler: Handler): Subscription;

  /**
   * Asks, and resolves to the answer.
   *
   * @throws FASTMQ_NO_RESPONDER, FASTMQ_BUSY, FASTMQ_TIMEOUT, FASTMQ_CANCELLED, whatever code the
   * responder has given (the answer is the error's `reply`), FASTMQ_AGAIN: 65,535 are in flight;
   * else as {@link publish}. Of a server's client also FASTMQ_DISCONNECTED: it may or may not have
   * been handled, and FASTMQ_UNAVAILABLE.
   */
  request(subject: string, payload?: Payload, options?: RequestOptions): Promise<Message>;
  /**
   * Asks all that listen (or `answersMax` of them) and resolves to their answers, when all have
   * come, or those that have come in time.
   *
   * @throws Where nobody has answered, as {@link request}.
   */
  requestMany(subject: string, payload?: Payload, options?: RequestManyOptions): Promise<Answers>;
  /**
   * Asks, and iterates over the replies of one responder (or of `answersMax`) as they come. No
   * more than `credit` replies are under way that the loop has not taken.
   */
  requestStream(subject: string, payload?: Payload, options?: RequestStreamOptions):
    AnswerIterator;
  /** Opens a requester. @throws FASTMQ_INVALID, FASTMQ_CLOSED, FASTMQ_NO_MEMORY */
  requester(options?: RequesterOptions): Requester;
  /** As {@link Message.reply}. */
  reply(request: Message, payload?: Payload, options?: ReplyOptions): void;
  /**
   * Opens the reply stream of a request.
   *
   * @throws FASTMQ_NOT_FOUND: nobody waits. FASTMQ_INVALID: this is no request.
   * FASTMQ_UNSUPPORTED: the asker takes no stream.
   * FASTMQ_EXISTS: it was opened before. FASTMQ_CANCELLED: the subscription has ended.
   */
  replyStream(request: Message): ReplyStream;

  /**
   * Serves other processes at `unix:PATH`, `shm:NAME` and `tcp://HOST:PORT` (port 0 takes a free
   * one), on threads of its own. It listens when the call returns.
   *
   * @throws FASTMQ_INVALID, FASTMQ_DENIED (other machines would reach it, and `insecure` is not
   * set), FASTMQ_UNSUPPORTED (this is a client of another server), FASTMQ_IO, FASTMQ_CLOSED.
   */
  listen(urls: string | string[], options?: ListenOptions): Server;

  /** Figures of the client; of one that is closed the last ones. */
  statistics(): Statistics;
  /**
   * A descriptor for another event loop, readable exactly while {@link dispatch} has something to
   * do. It is the library's: only wait on it. Node's own loop needs none of this.
   */
  readonly fd: number;
  /** Milliseconds until something times out. */
  readonly nextDeadline: number;
  /** Does what is to be done now, for another event loop, and says what is ready. */
  dispatch(options?: { max?: number; budget?: number }): Ready;

  /**
   * Gives a number by which another thread of this process opens the same client, by
   * {@link attach}, until this one is closed.
   */
  share(): number;

  /**
   * Stops taking messages and resolves when every queue is empty and every callback and handler
   * has settled; then receives end. Go on receiving meanwhile. `timeout` in milliseconds; 5,000.
   *
   * @throws FASTMQ_TIMEOUT: the sentence says what still waits. FASTMQ_CLOSED.
   */
  drain(options?: { timeout?: number }): Promise<void>;
  /**
   * Closes the broker and the servers that this handle has opened, for all who share it:
   * everything that waits ends with FASTMQ_CLOSED. A
   * client of a server sends what was accepted, which may take a moment; `await using` does so
   * without holding the event loop. Any number of times.
   */
  close(): void;
  /** As `close`, for `using`. */
  [Symbol.dispose](): void;
  /** The same on a thread that may wait, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Opens a broker in this process; starts no thread and opens no descriptor. */
export function open(options?: OpenOptions): Client;

/**
 * Connects to the first of the servers that answers: `tcp://host:port`, `unix:/path` or `shm:NAME`.
 * The client connects again by itself whenever the connection breaks.
 *
 * @throws FASTMQ_INVALID: a URL or an option. FASTMQ_UNAVAILABLE, FASTMQ_DENIED, or what else the
 * last server has said. FASTMQ_TIMEOUT, FASTMQ_UNSUPPORTED, FASTMQ_IO.
 */
export function connect(urls: string | string[], options?: ConnectOptions): Promise<Client>;

/**
 * Opens a client that another thread of this process shares, by the number that
 * {@link Client.share} gave there. It is the same broker; closing it closes it for both.
 *
 * @throws FASTMQ_NOT_FOUND: no client is shared under this number.
 */
export function attach(key: number): Client;

/** How important a line of the log is. */
export type Level = 'error' | 'warn' | 'info' | 'debug';

/**
 * Sets what gets the lines of the log up to `level`; one for the process. Without it nothing is
 * logged. Of 1,024 lines that wait for this thread the oldest are dropped.
 */
export function setLog(
  level: Level | 'off',
  onLog?: (level: Level, target: string, text: string) => void,
): void;

/** The version of the library. */
export const version: string;
/** The ABI of C that it has: major << 16 | minor. */
export const abi: number;

/** Presence: who subscribes is told on `$SYS.JOINED.PATTERN` to all who listen there. */
export const SUBJECT_JOINED: '$SYS.JOINED';
/** Presence: who leaves. */
export const SUBJECT_LEFT: '$SYS.LEFT';
/** Presence: clients that connect to a broker that listens. */
export const SUBJECT_CONNECTED: '$SYS.CONNECTED';
/** Presence: clients whose connection ends. */
export const SUBJECT_DISCONNECTED: '$SYS.DISCONNECTED';
/** A server answers a request to this subject with what it does, as a JSON object. */
export const SUBJECT_STATS: '$SYS.SERVER.STATS';
/** The header of presence that has the subscription's id, in decimal. */
export const HEADER_SUBSCRIPTION: 'Subscription';
/** The header of presence that has the client's number, in decimal. */
export const HEADER_CLIENT: 'Client';
/** The header of presence that says how a connection broke. */
export const HEADER_BROKEN: 'Broken';
