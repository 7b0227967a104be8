/* FAST MQ: the C interface. Made by cbindgen from ffi: change it there, then `make header`. */

#ifndef FASTMQ_H
#define FASTMQ_H

#include <stddef.h>
#include <stdint.h>

/* The ABI that this header describes, major << 16 | minor. A library fits whose fastmq_abi() has the
 * same major number and no lower minor one. */
#define FASTMQ_ABI UINT32_C(1)

/* A time-out that never comes. */
#define FASTMQ_FOREVER UINT64_MAX

/* Presence: whoever subscribes to `room.*` is told on $SYS.JOINED.room.(*), and on
 * $SYS.LEFT.room.(*) when the subscription ends, to all who subscribe to such subjects. The
 * payload is the pattern, the key is the group, and the header has the subscription's id, in
 * decimal. A queue without room for it loses it, whatever its policy, and is told so: nobody waits.
 * See docs/reference/presence.md. */
#define FASTMQ_SUBJECT_JOINED "$SYS.JOINED"
#define FASTMQ_SUBJECT_LEFT "$SYS.LEFT"
#define FASTMQ_HEADER_SUBSCRIPTION "Subscription"

/* A server answers a request of its client to this subject with what it does, as a JSON object:
 * its sums, its connections, those that are slow, its patterns. Elsewhere it is DENIED, as all
 * subjects that begin with $SYS. */
#define FASTMQ_SUBJECT_STATS "$SYS.SERVER.STATS"

/* Clients, too: whoever connects to a broker that listens is told on $SYS.CONNECTED.NAME,
 * and on $SYS.DISCONNECTED.NAME when the connection ends. The payload is the name, the first header
 * has the client's number, in decimal, the second one says how the connection broke, if it did. */
#define FASTMQ_SUBJECT_CONNECTED "$SYS.CONNECTED"
#define FASTMQ_SUBJECT_DISCONNECTED "$SYS.DISCONNECTED"
#define FASTMQ_HEADER_CLIENT "Client"
#define FASTMQ_HEADER_BROKEN "Broken"

/* As many answers as there are responders. */
#define FASTMQ_ANSWERS_ALL UINT32_MAX

// What a call says; the tens say what to do next.
enum fastmq_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    FASTMQ_OK = 0,
    // Nothing ready, or no room: wait, then call again.
    FASTMQ_AGAIN = 1,
    // The time is up.
    FASTMQ_TIMEOUT = 2,
    // Closed and drained.
    FASTMQ_END = 3,
    // Cancelled before it was answered.
    FASTMQ_CANCELLED = 4,
    // An argument is wrong, and the sentence names it.
    FASTMQ_INVALID = 10,
    // The call is wrong here: overlap, second open batch, stale handle, after fork.
    FASTMQ_MISUSE = 11,
    // Larger than a limit.
    FASTMQ_TOO_LARGE = 12,
    // Not supported.
    FASTMQ_UNSUPPORTED = 13,
    // The parent of the handle is closed.
    FASTMQ_CLOSED = 14,
    // There is no such thing.
    FASTMQ_NOT_FOUND = 20,
    // It exists already.
    FASTMQ_EXISTS = 21,
    // Nobody answers this subject.
    FASTMQ_NO_RESPONDER = 22,
    // The responder has no room.
    FASTMQ_BUSY = 23,
    // Another change came first.
    FASTMQ_CONFLICT = 24,
    // Not now; try again.
    FASTMQ_UNAVAILABLE = 30,
    // The connection is gone; the fate is unknown.
    FASTMQ_DISCONNECTED = 31,
    // Disconnected for being slow.
    FASTMQ_SLOW_CONSUMER = 32,
    // Not permitted.
    FASTMQ_DENIED = 40,
    // A memory cap or the disk is full.
    FASTMQ_NO_SPACE = 41,
    // Data are damaged.
    FASTMQ_CORRUPT = 42,
    // The operating system refused.
    FASTMQ_IO = 43,
    // The allocator has no memory.
    FASTMQ_NO_MEMORY = 44,
    // A bug of this library.
    FASTMQ_INTERNAL = 50,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_status fastmq_status;
#else
typedef uint32_t fastmq_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a queue does with messages for which there is no room, or which newer ones replace.
enum fastmq_policy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The publish is refused with AGAIN, and nobody gets the message.
    FASTMQ_POLICY_BACKPRESSURE = 0,
    // The oldest messages are dropped and counted.
    FASTMQ_POLICY_DROP_OLDEST = 1,
    // The new message is dropped and counted.
    FASTMQ_POLICY_DROP_NEWEST = 2,
    // Of each subject the newest message waits, and replaces one that nobody has received: the
    // receiver gets what has changed, in the order of the first changes. Never full. Requests
    // pass it by; a subscription of a group cannot use it.
    FASTMQ_POLICY_LATEST = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_policy fastmq_policy;
#else
typedef uint32_t fastmq_policy;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a reader waits.
enum fastmq_wait
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Spins for a while that adapts, then sleeps. In the options of a queue: as the client.
    FASTMQ_WAIT_BALANCED = 0,
    // Spins longer before it sleeps.
    FASTMQ_WAIT_LATENCY = 1,
    // Sleeps at once.
    FASTMQ_WAIT_LOW_POWER = 2,
    // Never sleeps.
    FASTMQ_WAIT_BUSY_POLL = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_wait fastmq_wait;
#else
typedef uint32_t fastmq_wait;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a subscription's messages reach the application.
enum fastmq_delivery
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Pulled with fastmq_receive.
    FASTMQ_DELIVERY_QUEUE = 0,
    // on_message, on a thread of the library.
    FASTMQ_DELIVERY_THREAD = 1,
    // on_message, inside fastmq_dispatch.
    FASTMQ_DELIVERY_DISPATCH = 2,
    // on_message, on the publishing thread; no queue.
    FASTMQ_DELIVERY_INLINE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_delivery fastmq_delivery;
#else
typedef uint32_t fastmq_delivery;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How the members of a group share its messages.
enum fastmq_group_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Each message goes to a member that is less loaded than others.
    FASTMQ_GROUP_BALANCED = 0,
    // Messages of one key go to one member, those of one publisher in order, while members come,
    // go and stall. The key of a message without one is its subject. Members have a queue whose
    // policy is FASTMQ_POLICY_BACKPRESSURE, and the same pattern: with another it is another
    // group.
    //
    // A key moves to a member that joins, and away from one that leaves, once the messages of it
    // that the publisher sent before were handled: the batch freed, or the callback returned.
    // Until then a publish of that key returns AGAIN. What a member that leaves has not read goes
    // to the others first; what it is shown then is still its own. Of a member in another process
    // a message counts as handled once it has reached that process: when members join or leave,
    // what waits there may be handled beside what comes after, and who leaves takes it along.
    FASTMQ_GROUP_KEY_SHARED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_group_mode fastmq_group_mode;
#else
typedef uint32_t fastmq_group_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Bits of `fastmq_message.flags`.
enum fastmq_message_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Delivered before.
    FASTMQ_MESSAGE_REDELIVERED = 1,
    // More replies follow.
    FASTMQ_MESSAGE_MORE = 2,
    // The last of several replies.
    FASTMQ_MESSAGE_END = 4,
    // An answer is expected.
    FASTMQ_MESSAGE_REQUEST = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_message_flag fastmq_message_flag;
#else
typedef uint32_t fastmq_message_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What fastmq_dispatch found ready, as bits.
enum fastmq_ready
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Messages wait in a queue that is pulled, or were handled.
    FASTMQ_READY_MESSAGES = 1,
    // A requester has answers.
    FASTMQ_READY_ANSWERS = 2,
    // A queue that refused a publish has room.
    FASTMQ_READY_ROOM = 4,
    // A deadline has passed.
    FASTMQ_READY_DEADLINE = 8,
    // The budget ended before the work.
    FASTMQ_READY_MORE = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_ready fastmq_ready;
#else
typedef uint32_t fastmq_ready;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How important a line of the log is.
enum fastmq_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // No lines.
    FASTMQ_LOG_OFF = 0,
    // Something failed.
    FASTMQ_LOG_ERROR = 1,
    // Something is not as it should be.
    FASTMQ_LOG_WARN = 2,
    // Something that happens seldom.
    FASTMQ_LOG_INFO = 3,
    // Something for the developers.
    FASTMQ_LOG_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_log_level fastmq_log_level;
#else
typedef uint32_t fastmq_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How the kernel chooses among threads.
enum fastmq_scheduling
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // As it is; a new thread begins with that of the thread that starts it.
    FASTMQ_SCHEDULING_KEEP = 0,
    // SCHED_OTHER: shares its core with the others.
    FASTMQ_SCHEDULING_OTHER = 1,
    // SCHED_FIFO: runs until it sleeps or one of a higher priority comes.
    FASTMQ_SCHEDULING_FIFO = 2,
    // SCHED_RR: the same, in turns with those of its own priority.
    FASTMQ_SCHEDULING_RR = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_scheduling fastmq_scheduling;
#else
typedef uint32_t fastmq_scheduling;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How the streams of a request get more credit.
enum fastmq_credit
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Each reply that is received grants another one.
    FASTMQ_CREDIT_AUTOMATIC = 0,
    // Only fastmq_requester_grant does.
    FASTMQ_CREDIT_MANUAL = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_credit fastmq_credit;
#else
typedef uint32_t fastmq_credit;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where a client's time stamps come from. With them a message that was published by subject, by
// handle, in a batch of either or as a request carries its time in timestamp_ns, and a batch that
// was received has one: fastmq_batch_time. A message of a claim carries none.
enum fastmq_timestamps
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // There are none, and they cost nothing.
    FASTMQ_TIMESTAMPS_NONE = 0,
    // The host's clock.
    FASTMQ_TIMESTAMPS_CLOCK = 1,
    // The counter of the processor, calibrated by the host's clock each second: a few microseconds
    // off. Where it is no clock, the host's; `fastmq doctor` and the log say so. The first client
    // that asks for it takes a millisecond to open.
    FASTMQ_TIMESTAMPS_TSC = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_timestamps fastmq_timestamps;
#else
typedef uint32_t fastmq_timestamps;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What the memory of a client's queues, blocks and latest values is: bits of
// fastmq_options.memory.
//
// With any of them fastmq_open takes memory_max bytes, which must not be 0, in one piece, and has
// the system put memory behind each page. Queues that open and grow get their part of it, and no
// call waits for the system to find memory for a message. The process as a whole is left as it
// is: handles, routes, copies of messages (of FASTMQ_POLICY_DROP_OLDEST, of fastmq_batch_detach)
// and your own memory are the allocator's. It is given back when the client and all that was
// opened with it are closed, open batches included, and other threads that published by subject
// have ended or begun to use another client.
enum fastmq_memory
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It is there from the start, as with the other bits.
    FASTMQ_MEMORY_PREFAULT = 1,
    // It is locked (mlock): never written to a swap file. DENIED if RLIMIT_MEMLOCK does not allow
    // so much, and CAP_IPC_LOCK is missing.
    FASTMQ_MEMORY_LOCK = 2,
    // It is in huge pages of 2 MiB, to which memory_max is rounded up: those that vm.nr_hugepages
    // has reserved if there are enough, else such as the kernel makes; these may be fewer where
    // its memory is in pieces (AnonHugePages in /proc/self/smaps). UNSUPPORTED if there are
    // neither.
    FASTMQ_MEMORY_HUGE_PAGES = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_memory fastmq_memory;
#else
typedef uint32_t fastmq_memory;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Bits of `fastmq_outgoing.flags`.
enum fastmq_outgoing_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The message becomes the last value of its subject: whoever subscribes later with
    // FASTMQ_SUBSCRIBE_REPLAY_LAST gets it first. One that was refused does not; a message
    // without this flag leaves the last value as it is. Of two publishers at once, either may
    // have the last value. For 65,536 subjects of a client, beyond them NO_SPACE; their memory
    // counts in `memory_max`. The message is copied under a lock, so such a publish takes about
    // a microsecond. Not for requests and answers: INVALID. See fastmq_forget_last.
    FASTMQ_OUTGOING_KEEP_LAST = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_outgoing_flag fastmq_outgoing_flag;
#else
typedef uint32_t fastmq_outgoing_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Bits of `fastmq_subscribe_options.flags`.
enum fastmq_subscribe_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Of each subject that matches, the last value comes first, if one is kept
    // (FASTMQ_OUTGOING_KEEP_LAST): before all newer messages of its publisher, and once. These
    // take no room of the queue, whatever its policy. Not for groups and not for
    // FASTMQ_DELIVERY_INLINE: INVALID. With FASTMQ_SUBJECT_JOINED: who is there comes first.
    FASTMQ_SUBSCRIBE_REPLAY_LAST = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_subscribe_flag fastmq_subscribe_flag;
#else
typedef uint32_t fastmq_subscribe_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Bits of `fastmq_connect_options.flags`.
enum fastmq_connect_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // fastmq_connect does not wait for a connection, whatever connect_timeout_ns is, and does not
    // fail for want of one. Publishes wait for it, up to store_max.
    FASTMQ_CONNECT_LATER = 1,
    // fastmq_subscribe does not wait for the server's answer, whatever operation_timeout_ns is; a
    // refusal is FASTMQ_EVENT_UNSUBSCRIBED.
    FASTMQ_CONNECT_UNCONFIRMED = 2,
    // The client has no thread for its connection: it sends and receives inside its calls that
    // wait, ask, receive or dispatch, on_event included, and not between them. For a loop of your
    // own, which waits for fastmq_fd and then calls fastmq_dispatch. A publish makes that readable
    // and goes with the next such call, or by itself where 64 KiB wait.
    FASTMQ_CONNECT_POLLED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_connect_flag fastmq_connect_flag;
#else
typedef uint32_t fastmq_connect_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What an event is about.
enum fastmq_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // There is a connection, to `server`; the subscriptions were asked for again, `count` of them.
    // `flags` say whether it is the first one.
    FASTMQ_EVENT_CONNECTED = 1,
    // The connection broke or could not be made: `status` and `detail` say why. `count` accepted
    // publishes had not left, and are lost. The client tries again by itself, until it is closed:
    // then the last event is this one, with CLOSED.
    FASTMQ_EVENT_DISCONNECTED = 2,
    // The server has refused a publish to `subject`: `status`, `detail`.
    FASTMQ_EVENT_REFUSED = 3,
    // The server refuses the subscription `subscription_id`, which it had taken on an earlier
    // connection: `status`, `detail`.
    FASTMQ_EVENT_UNSUBSCRIBED = 4,
    // `count` messages of `subscription_id` were lost at the server; its next message counts them
    // in lost_before.
    FASTMQ_EVENT_GAP = 5,
    // The server has to keep `count` bytes for this client, which reads too slowly.
    FASTMQ_EVENT_SLOW = 6,
    // The server will close; the client goes to another one, or comes back.
    FASTMQ_EVENT_DRAINING = 7,
    // The server will refuse something soon: `detail`.
    FASTMQ_EVENT_LIMIT = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_event_kind fastmq_event_kind;
#else
typedef uint32_t fastmq_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Bits of `fastmq_event.flags`.
enum fastmq_event_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // CONNECTED, and not for the first time: what was published elsewhere since the last
    // connection broke has not come.
    FASTMQ_EVENT_AGAIN = 1,
    // CONNECTED to a server that is not the one of the last connection, or was restarted.
    FASTMQ_EVENT_OTHER_INSTANCE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_event_flag fastmq_event_flag;
#else
typedef uint32_t fastmq_event_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Bits of `fastmq_listen_options.flags`.
enum fastmq_listen_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It may listen at addresses that other machines reach, where its bytes, the token too, can be
    // read by others.
    FASTMQ_LISTEN_INSECURE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastmq_listen_flag fastmq_listen_flag;
#else
typedef uint32_t fastmq_listen_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Received messages, open until they are freed. Used by one thread at a time.
typedef struct fastmq_batch fastmq_batch;

// A broker in this process (fastmq_open), or one of a server in another (fastmq_connect). Used
// from any thread at the same time.
typedef struct fastmq_client fastmq_client;

// Headers to send with messages. Used by one thread at a time, also while a message with them is
// being published.
typedef struct fastmq_headers fastmq_headers;

// A subject to publish to: the fastest way. Used by one thread at a time.
typedef struct fastmq_publisher fastmq_publisher;

// A place where messages wait until they are received.
typedef struct fastmq_queue fastmq_queue;

// A responder's stream of replies to one request. Used by one thread at a time.
typedef struct fastmq_reply_stream fastmq_reply_stream;

// Many requests in flight. Used by one thread at a time.
typedef struct fastmq_requester fastmq_requester;

// A broker that other processes use. Used from any thread at the same time.
typedef struct fastmq_server fastmq_server;

// A pattern and where its messages go.
typedef struct fastmq_subscription fastmq_subscription;

// A pointer and a size; NULL with size 0 is empty.
typedef struct fastmq_bytes {
    // The first byte.
    const uint8_t *data;
    // How many bytes.
    size_t size;
} fastmq_bytes;

// A received message; frozen, 144 bytes (docs/formats.md, section 3). An absent field is NULL with
// size 0.
typedef struct fastmq_message {
    // The subject; empty for an answer.
    struct fastmq_bytes subject;
    // The payload.
    struct fastmq_bytes payload;
    // Where an answer may be published.
    struct fastmq_bytes reply_to;
    // Encoded headers: fastmq_headers_get.
    struct fastmq_bytes headers;
    // The key.
    struct fastmq_bytes key;
    // The publisher's sequence, from 1 on; 0: published without a handle.
    uint64_t sequence;
    // Unix nanoseconds of the publish, or 0.
    uint64_t timestamp_ns;
    // Names the request to answer, or the request that this answers; 0: none.
    uint64_t token;
    // 1 on the first delivery.
    uint32_t delivery_count;
    // Messages dropped by this queue since the previous one.
    uint32_t lost_before;
    // Status of an answer; 0 otherwise.
    uint32_t status;
    // The subscription that this came by; of an answer to fastmq_requester_submit_many and
    // fastmq_request_many, the responder's.
    uint32_t subscription_id;
    // FASTMQ_MESSAGE_... bits.
    uint32_t flags;
    // Reserved.
    uint32_t reserved0;
    // The number given at subscribe.
    uint64_t tag;
    // Names the publisher that counts `sequence`; 0: published without a handle. After a message
    // of the same publisher and subscription, a sequence that is not one more tells of a gap:
    // messages that a policy dropped (lost_before), that expired, or that went to others of a
    // group.
    uint64_t publisher;
} fastmq_message;

// What a thread is to be: set `struct_size`; 0 in the others leaves it as it is. A new thread
// begins with the cores and the scheduling of the thread that starts it.
typedef struct fastmq_thread_options {
    // sizeof(fastmq_thread_options).
    uint32_t struct_size;
    // How the kernel chooses: fastmq_scheduling.
    uint32_t scheduling;
    // What /proc shows: at most 15 bytes; 11 for the threads of a client, whose names are this,
    // "-" and a number from 0. They are called fmq-call and a number by default.
    struct fastmq_bytes name;
    // The cores it may run on: bit n for core n, of the first 64.
    uint64_t cores;
    // 1 to 99 under FIFO and RR, else 0.
    uint32_t priority;
    // 0, reserved.
    uint32_t reserved;
} fastmq_thread_options;

// Options of a client: set `struct_size`; 0 in the others is the default.
typedef struct fastmq_options {
    // sizeof(fastmq_options).
    uint32_t struct_size;
    // 0, reserved.
    uint32_t flags;
    // Cap on the bytes of lanes, blocks and latest values; 0: no cap.
    uint64_t memory_max;
    // Default capacity of a lane in bytes; 0: 8 MiB.
    uint64_t queue_capacity;
    // Largest payload; 0: 1 MiB; at most 64 MiB.
    uint64_t payload_max;
    // How readers wait: fastmq_wait.
    uint32_t wait;
    // Library threads for FASTMQ_DELIVERY_THREAD; 0: 1.
    uint32_t threads_max;
    // How long close waits for running callbacks; 0: 5 s.
    uint64_t close_timeout_ns;
    // What library threads are, borrowed by fastmq_open, which tries it; NULL: as the thread that
    // starts them.
    const struct fastmq_thread_options *threads;
    // Whether messages and batches carry their time: fastmq_timestamps.
    uint32_t timestamps;
    // What memory is: bits of fastmq_memory; 0: the allocator's, taken when it is needed.
    uint32_t memory;
} fastmq_options;

// What has happened to a client's connection; 0 and empty where the kind names no field. Like
// fastmq_message it never grows: new facts take reserved fields.
typedef struct fastmq_event {
    // fastmq_event_kind. Ignore one that you do not know.
    uint32_t kind;
    // FASTMQ_EVENT_... bits.
    uint32_t flags;
    // Why: fastmq_status.
    uint32_t status;
    // Which subscription.
    uint32_t subscription_id;
    // How many: see the kind.
    uint64_t count;
    // What the server is called.
    struct fastmq_bytes server;
    // The subject of a message.
    struct fastmq_bytes subject;
    // Why, as a sentence.
    struct fastmq_bytes detail;
    // 0, reserved.
    uint64_t reserved[2];
} fastmq_event;

// Is told what happens to a connection. The event and its bytes are readable until it returns.
//
// It runs on the thread that drives the connection, one event at a time: the client's own, or one
// of yours inside a call that waits. Nothing is read or sent meanwhile: it must not block. It may
// publish, reply and close the client, which is told once more then; a request or a subscription
// made there is MISUSE. No C++ exception and no longjmp may leave it: the process would end.
typedef void (*fastmq_on_event)(const struct fastmq_event *event, void *context);

// How a client connects: set `struct_size`; 0 in the others is the default.
typedef struct fastmq_connect_options {
    // sizeof(fastmq_connect_options).
    uint32_t struct_size;
    // FASTMQ_CONNECT_... bits.
    uint32_t flags;
    // What the client is called, at most 255 bytes; copied.
    struct fastmq_bytes name;
    // The secret that the server asks for, at most 4,096 bytes; copied.
    struct fastmq_bytes token;
    // How long fastmq_connect waits for a connection; 0: 5 s.
    uint64_t connect_timeout_ns;
    // How long fastmq_subscribe waits for the server's answer; 0: 5 s.
    uint64_t operation_timeout_ns;
    // Bytes of publishes that wait while there is no connection, beyond which they get AGAIN; 0:
    // 1 MiB; 1: none wait.
    uint64_t store_max;
    // The shortest pause before the servers are tried again; 0: 20 ms.
    uint64_t backoff_min_ns;
    // The longest; 0: 5 s, or the shortest if that is longer.
    uint64_t backoff_max_ns;
    // Is told what happens to the connection; NULL: nobody.
    fastmq_on_event on_event;
    // Passed to on_event.
    void *context;
    // As of a client of a broker in this process, borrowed; its `threads` are also what the
    // client's own thread is; NULL: the defaults.
    const struct fastmq_options *client;
} fastmq_connect_options;

// Gets a line of the log; the texts are readable until it returns. It may run on any thread.
typedef void (*fastmq_on_log)(uint32_t level, const char *target, const char *text, void *context);

// A message to send: set `struct_size`, what you need, and the rest to 0.
typedef struct fastmq_outgoing {
    // sizeof(fastmq_outgoing).
    uint32_t struct_size;
    // FASTMQ_OUTGOING_... bits.
    uint32_t flags;
    // Where to; empty where a handle has a subject of its own.
    struct fastmq_bytes subject;
    // What.
    struct fastmq_bytes payload;
    // Where an answer may be published; empty: nowhere.
    struct fastmq_bytes reply_to;
    // What keeps messages of one kind in order in key-shared groups; empty: none.
    struct fastmq_bytes key;
    // Headers, or NULL.
    const struct fastmq_headers *headers;
    // Requests: comes back with the answer.
    uint64_t token;
    // How long it is worth delivering; 0: for ever. A request not read by then ends in TIMEOUT.
    uint64_t ttl_ns;
    // 0, reserved.
    uint32_t priority;
    // 0, reserved.
    uint32_t reserved;
} fastmq_outgoing;

// What a request wants to which several answers may come: set `struct_size`; 0 in the others is
// the default.
typedef struct fastmq_many_options {
    // sizeof(fastmq_many_options).
    uint32_t struct_size;
    // How many responders' answers; FASTMQ_ANSWERS_ALL: of all that get the request; 0: 1.
    uint32_t answers_max;
    // Replies that a responder may stream before the first is received; at most 1,048,576; 0: no
    // reply streams.
    uint32_t credit;
    // How streams get more credit: fastmq_credit.
    uint32_t credit_mode;
    // The longest time without a message for this request, which then ends with TIMEOUT; 0: any.
    uint64_t gap_ns;
} fastmq_many_options;

// Options of a queue: set `struct_size`; 0 in the others is the default.
typedef struct fastmq_queue_options {
    // sizeof(fastmq_queue_options).
    uint32_t struct_size;
    // What happens when a lane is full: fastmq_policy.
    uint32_t policy;
    // Bytes per lane at most; 0: the client's default. Not used by FASTMQ_POLICY_LATEST.
    uint64_t capacity;
    // How the reader waits: fastmq_wait; 0: the client's default.
    uint32_t wait;
    // 0, reserved.
    uint32_t reserved;
} fastmq_queue_options;

// Options of a requester: set `struct_size`; 0 in the others is the default.
typedef struct fastmq_requester_options {
    // sizeof(fastmq_requester_options).
    uint32_t struct_size;
    // Requests in flight at most; 0: 1,024; at most 65,535.
    uint32_t in_flight_max;
    // The subject of every request; empty: each submit names its own.
    struct fastmq_bytes subject;
    // How receive waits: fastmq_wait; 0: the client's default.
    uint32_t wait;
    // 0, reserved.
    uint32_t reserved;
} fastmq_requester_options;

// How a broker listens: set `struct_size`; 0 in the others is the default.
typedef struct fastmq_listen_options {
    // sizeof(fastmq_listen_options).
    uint32_t struct_size;
    // FASTMQ_LISTEN_... bits.
    uint32_t flags;
    // What clients must know, at most 4,096 bytes; copied; empty: nothing.
    struct fastmq_bytes token;
    // What the server is called, at most 255 bytes; copied.
    struct fastmq_bytes name;
    // Connections at once, of all its threads together; 0: 65,536.
    uint32_t connections_max;
    // Subscriptions of one connection; 0: 4,096.
    uint32_t subscriptions_max;
    // How its threads wait: fastmq_wait.
    uint32_t wait;
    // Threads that serve connections, at most 64; each connection has one of them; 0: 1.
    uint32_t shards;
    // What its threads are, borrowed; NULL: as the thread that starts them.
    const struct fastmq_thread_options *thread;
    // Sockets that listen already, which a service manager has made, to accept at beside the URLs:
    // descriptors, borrowed and duplicated. Their files are left alone.
    const int32_t *sockets;
    // How many.
    size_t sockets_count;
    // Where else its clients may connect: URLs with commas between them, at most 4,096 bytes;
    // copied. They are told when they connect and when this server drains, and try those, too,
    // when it is gone.
    struct fastmq_bytes servers;
} fastmq_listen_options;

// Figures of a client since it was opened. Set `struct_size`.
typedef struct fastmq_client_statistics {
    // sizeof(fastmq_client_statistics).
    uint32_t struct_size;
    // Library threads that run now.
    uint32_t threads;
    // Messages accepted from publishers; requests and answers not counted.
    uint64_t published;
    // Messages, requests and answers given to readers and callbacks.
    uint64_t delivered;
    // Messages dropped by a queue's policy.
    uint64_t dropped;
    // Messages that expired unread.
    uint64_t expired;
    // Publishes refused with AGAIN, NO_SPACE or NO_MEMORY.
    uint64_t refused;
    // Requests sent.
    uint64_t requests;
    // Answers sent.
    uint64_t answers;
    // Answers that came for a request that was over.
    uint64_t late_answers;
    // Bytes of lanes, blocks, latest and last values now.
    uint64_t memory;
    // The most there ever were.
    uint64_t memory_high;
    // Queues that are open, those of requesters and callbacks included.
    uint64_t queues;
    // Subscriptions that are open.
    uint64_t subscriptions;
    // Readings of the clock.
    uint64_t clock_calls;
    // Locks of shared lanes taken.
    uint64_t locks;
    // Times that a thread went to sleep.
    uint64_t parks;
    // Wake-ups sent, signalled descriptors included.
    uint64_t wakes;
    // Last values that are kept now.
    uint64_t last_values;
} fastmq_client_statistics;

// Figures of a queue since it was opened. Set `struct_size`.
typedef struct fastmq_queue_statistics {
    // sizeof(fastmq_queue_statistics).
    uint32_t struct_size;
    // Lanes that exist now.
    uint32_t lanes;
    // Messages written; those dropped at the door not counted.
    uint64_t published;
    // Messages given to the reader.
    uint64_t delivered;
    // Messages dropped: refused at the door by drop_newest, or evicted.
    uint64_t dropped;
    // Messages that expired unread.
    uint64_t expired;
    // Messages that wait or are in an open batch.
    uint64_t pending;
    // Their bytes.
    uint64_t pending_bytes;
    // The most bytes that the reader has seen waiting.
    uint64_t high_water_bytes;
    // Locks of the shared lane taken.
    uint64_t locks;
    // Times that the reader slept.
    uint64_t waits;
    // Times that it was woken.
    uint64_t wakes;
    // Messages of a latest queue that newer ones have replaced unread.
    uint64_t replaced;
} fastmq_queue_statistics;

// Figures of a subscription since it was made. Set `struct_size`.
typedef struct fastmq_subscription_statistics {
    // sizeof(fastmq_subscription_statistics).
    uint32_t struct_size;
    // The number that its messages carry.
    uint32_t id;
    // Messages delivered.
    uint64_t delivered;
    // Messages dropped for it by its queue's policy.
    uint64_t dropped;
} fastmq_subscription_statistics;

// Gets a message, which is readable until it returns. No C++ exception and no longjmp may leave
// it: the process would end.
typedef void (*fastmq_on_message)(const struct fastmq_message *message, void *context);

// Options of a subscription: set `struct_size`; 0 in the others is the default.
typedef struct fastmq_subscribe_options {
    // sizeof(fastmq_subscribe_options).
    uint32_t struct_size;
    // How messages arrive: fastmq_delivery.
    uint32_t delivery;
    // Members of a group share its messages; empty: no group.
    struct fastmq_bytes group;
    // Where messages wait, for FASTMQ_DELIVERY_QUEUE; NULL: a queue of its own.
    struct fastmq_queue *queue;
    // Comes back in fastmq_message.tag.
    uint64_t tag;
    // What is called, for the other deliveries.
    fastmq_on_message on_message;
    // Passed to on_message, which may run on any thread.
    void *context;
    // What happens when a queue of its own, or that of its callback, is full: fastmq_policy.
    uint32_t policy;
    // FASTMQ_SUBSCRIBE_... bits.
    uint32_t flags;
    // How the members of the group share its messages, the same for all: fastmq_group_mode.
    uint32_t group_mode;
    // This member's part of the group's messages beside that of the others, at most 1,000; 0: 1.
    uint32_t weight;
} fastmq_subscribe_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Gives the messages of a batch, in the order in which they are to be handled.
//
// The array and all that it points to live until fastmq_batch_free. One thread at a time.
// Returns NULL with `*out_count` 0 on failure: INVALID, MISUSE in fastmq_last_error.
//
// # Safety
// `out_count` is writable.
const struct fastmq_message *fastmq_batch_messages(const struct fastmq_batch *batch,
                                                   size_t *out_count);

// Gives the time when a batch was received, in Unix nanoseconds; 0 if the client was opened
// without time stamps.
//
// One thread at a time. Returns 0 on failure, too: INVALID, MISUSE in fastmq_last_error.
//
// # Safety
// None: any value of `batch` is checked.
uint64_t fastmq_batch_time(const struct fastmq_batch *batch);

// Copies a batch out, so that its queue gets its room back, and closes it.
//
// `*out` is yours until fastmq_batch_free, also after the queue and the client are closed. After a
// failure `batch` is as it was. One thread at a time.
// Returns OK, NO_MEMORY, INVALID, MISUSE.
//
// # Safety
// `out` is writable.
fastmq_status fastmq_batch_detach(struct fastmq_batch *batch, struct fastmq_batch **out);

// Frees a batch; its queue gets the room back.
//
// Takes NULL. One thread at a time. In a forked child it does nothing.
//
// # Safety
// Nothing that the batch gave is used any more.
void fastmq_batch_free(struct fastmq_batch *batch);

// Opens a broker in this process; starts no thread and opens no descriptor. Options of library
// threads are tried on a thread that has ended when this returns.
//
// `options` is borrowed until the call returns; NULL: the defaults. `*out` is yours until
// fastmq_close. Safe from any thread.
// Returns OK, INVALID, DENIED (the right to the options of library threads, or to lock so much
// memory, is missing; the sentence names the cure), UNSUPPORTED (no thread can be started, or
// there are no huge pages), IO, NO_MEMORY, MISUSE.
//
// # Safety
// `options` is NULL or readable for its `struct_size`, and so is what it points to; `out` is
// writable.
fastmq_status fastmq_open(const struct fastmq_options *options, struct fastmq_client **out);

// Stops taking messages and waits until every queue is empty and no callback runs.
//
// Safe from any thread. A callback that calls it does not count, nor do others that call it too.
// Returns OK, TIMEOUT (the sentence says what still waits), CLOSED, INVALID, MISUSE.
//
// # Safety
// None: any value of `client` is checked.
fastmq_status fastmq_drain(struct fastmq_client *client, uint64_t timeout_ns);

// Closes the broker: its other handles answer CLOSED from now on, waiting calls return, requests
// that wait are answered CANCELLED (those that are out at a server DISCONNECTED), and library
// threads end. Its servers close first, at once.
//
// Takes NULL. Waits for running callbacks for at most `close_timeout_ns`, not for one that calls
// it. The other handles are still closed once each. Safe from any thread. In a forked child it
// ends the handle only.
//
// # Safety
// None: any value of `client` is checked.
void fastmq_close(struct fastmq_client *client);

// Connects to the first of the servers that answers, and opens a client of it.
//
// `urls` ends with a zero: `unix:/path`, `shm:NAME` (shared memory with a server that listens so)
// or `tcp://host:port`, with commas between several. What the client can do is what that of
// fastmq_open can, with the same calls, over a thread of its own (or none: FASTMQ_CONNECT_POLLED),
// which connects again whenever the connection breaks: then it subscribes again, and publishes
// wait for the next connection, up to `store_max`.
//
// What differs: a publish that OK accepted may be refused by the server, or lost with the
// connection, and on_event is told. A subscribe waits for the server's answer, and may also return
// what that is, UNAVAILABLE or TIMEOUT. A request or its answer may be DISCONNECTED (it was open
// when the connection broke: it may or may not have been handled) or UNAVAILABLE (there is none).
// A callback with FASTMQ_DELIVERY_INLINE runs where on_event does, and must not ask or subscribe
// there (MISUSE). UNSUPPORTED: keeping last values, fastmq_listen. All that differs is in
// docs/reference/processes.md.
//
// `urls` and `options` are borrowed until the call returns; NULL options: the defaults. `*out` is
// yours until fastmq_close, which sends what was accepted and waits for a running on_event for at
// most `close_timeout_ns`; afterwards, and after a failure, on_event is not called. Safe from any
// thread; blocks for at most `connect_timeout_ns`.
// Returns OK, INVALID (a URL or an option; the sentence says which), UNAVAILABLE, DENIED, or what
// else the last server said once all were tried; TIMEOUT, UNSUPPORTED (no thread can be started),
// IO, NO_MEMORY, MISUSE.
//
// # Safety
// `urls` ends with a zero; `options` is NULL or readable for its `struct_size`, and so is what it
// points to; `on_event` may be called with `context` until fastmq_close has returned; `out` is
// writable.
fastmq_status fastmq_connect(const char *urls,
                             const struct fastmq_connect_options *options,
                             struct fastmq_client **out);

// Gives the sentence about this thread's last failed call, or "".
//
// It is yours to read until the next call that fails on this thread. Safe from any thread, also
// after fork.
const char *fastmq_last_error(void);

// Makes an empty set of headers.
//
// `*out` is yours until fastmq_headers_close; it belongs to no client. Safe from any thread.
// Returns OK, INVALID, NO_MEMORY.
//
// # Safety
// `out` is writable.
fastmq_status fastmq_headers_open(struct fastmq_headers **out);

// Adds a header at the end; a name may stand several times.
//
// `name` and `value` are copied. One thread at a time.
// Returns OK, INVALID, TOO_LARGE (64 KiB in all), NO_MEMORY, MISUSE.
//
// # Safety
// Both byte ranges are readable.
fastmq_status fastmq_headers_add(struct fastmq_headers *headers,
                                 struct fastmq_bytes name,
                                 struct fastmq_bytes value);

// Removes all headers of a set.
//
// Takes NULL. One thread at a time.
//
// # Safety
// None: any value of `headers` is checked.
void fastmq_headers_clear(struct fastmq_headers *headers);

// Frees a set of headers; messages sent with it keep theirs.
//
// Takes NULL. One thread at a time.
//
// # Safety
// None: any value of `headers` is checked.
void fastmq_headers_close(struct fastmq_headers *headers);

// Finds the first header with this name, compared without ASCII case.
//
// `headers` is that of a received message; `*out_value` points into it. Safe from any thread.
// Returns OK, NOT_FOUND, INVALID.
//
// # Safety
// Both byte ranges are readable; `out_value` is writable.
fastmq_status fastmq_headers_get(struct fastmq_bytes headers,
                                 struct fastmq_bytes name,
                                 struct fastmq_bytes *out_value);

// Gives one header after the other; `*cursor` starts at 0.
//
// `headers` is that of a received message; the results point into it. Safe from any thread.
// Returns OK, END, INVALID.
//
// # Safety
// `headers` is readable; `cursor` is readable and writable; both out pointers are writable.
fastmq_status fastmq_headers_next(struct fastmq_bytes headers,
                                  size_t *cursor,
                                  struct fastmq_bytes *out_name,
                                  struct fastmq_bytes *out_value);

// Sets what gets the lines of the log up to `level` (fastmq_log_level); NULL or 0: nothing.
//
// One hook for the process; `context` is passed to it and stays yours. The hook that was set
// before may still be running on another thread when this returns. Safe from any thread.
//
// # Safety
// `on_log` is NULL or may be called with `context` from any thread until another one is set.
void fastmq_set_log(uint32_t level, fastmq_on_log on_log, void *context);

// Gives the client's descriptor for epoll or poll: readable exactly while fastmq_dispatch has
// something to do.
//
// The descriptor is the library's: only wait on it. Safe from any thread.
// Returns -1 on failure: IO, CLOSED, INVALID, MISUSE in fastmq_last_error.
//
// # Safety
// None: any value of `client` is checked.
int32_t fastmq_fd(struct fastmq_client *client);

// Calls the callbacks of FASTMQ_DELIVERY_DISPATCH and says what else is ready.
//
// Stops after `message_max` messages and `budget_ns` nanoseconds, FASTMQ_FOREVER or 0 for no
// limit; `*out_ready` gets fastmq_ready bits. Does not wait. Safe from any thread.
// Returns OK, NO_MEMORY, CLOSED, CORRUPT, INVALID, MISUSE.
//
// # Safety
// `out_ready` is writable.
fastmq_status fastmq_dispatch(struct fastmq_client *client,
                              uint32_t message_max,
                              uint64_t budget_ns,
                              uint32_t *out_ready);

// Says in how many nanoseconds something times out, for loops with their own timers.
//
// Safe from any thread. Returns FASTMQ_FOREVER if nothing will, and on failure: CLOSED, INVALID,
// MISUSE in fastmq_last_error.
//
// # Safety
// None: any value of `client` is checked.
uint64_t fastmq_next_deadline(struct fastmq_client *client);

// Sends a request to which several answers may come: of several responders, or of one that
// streams its replies.
//
// As fastmq_requester_submit_message, without a subject to the requester's own; `options` is
// borrowed until the call returns; NULL: the defaults. After OK fastmq_requester_receive gives
// each answer with this token. Each has the flag FASTMQ_MESSAGE_MORE but the last, which has
// FASTMQ_MESSAGE_END; exactly one has that. `subscription_id` says whose answer it is. If it is
// 0, the message is the library's own and the last: its status is FASTMQ_NO_RESPONDER,
// FASTMQ_BUSY, FASTMQ_TIMEOUT, FASTMQ_CANCELLED, or FASTMQ_END (whoever has not answered is gone).
// The end of a reply stream is a message too: FASTMQ_END, FASTMQ_CANCELLED (its responder went
// away), or the error that the responder ended it with.
// `timeout_ns` is for the request as a whole. A responder's answer or the end of its stream counts
// as one of `answers_max`.
// Returns OK, AGAIN (in_flight_max are in flight, or as many as the connection to a server takes
// now: receive answers first), INVALID, DENIED (the subject begins with $SYS), TOO_LARGE,
// NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
//
// # Safety
// As for fastmq_publish_message; `options` is NULL or readable for its `struct_size`; no other
// call uses the requester.
fastmq_status fastmq_requester_submit_many(struct fastmq_requester *requester,
                                           const struct fastmq_outgoing *request,
                                           uint64_t timeout_ns,
                                           const struct fastmq_many_options *options);

// Grants `replies` more replies to each reply stream of a request.
//
// One thread at a time. A responder that waits for credit hears of it.
// Returns OK, NOT_FOUND (no request for many answers in flight has this token), INVALID (`replies`
// is 0 or above 1,048,576, or the request takes no streams), CLOSED, MISUSE.
//
// # Safety
// No other call uses the requester.
fastmq_status fastmq_requester_grant(struct fastmq_requester *requester,
                                     uint64_t token,
                                     uint32_t replies);

// Asks and waits until `answers_max` responders have answered (FASTMQ_ANSWERS_ALL: all that have
// the request), or for at most `timeout_ns`.
//
// `request` and what it points to are borrowed until the call returns. `*out_answers` is a batch
// of one answer or more, yours until fastmq_batch_free. Its last message has the flag
// FASTMQ_MESSAGE_END; if its `subscription_id` is 0 it is no answer, and its status says why fewer
// came than were asked for: FASTMQ_TIMEOUT, or FASTMQ_END (the others are gone). Safe from any
// thread.
// Returns OK; where nobody has answered NO_RESPONDER, BUSY, TIMEOUT, CANCELLED; INVALID, DENIED
// (the subject begins with $SYS), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
//
// # Safety
// As for fastmq_publish_message; `out_answers` is writable.
fastmq_status fastmq_request_many(struct fastmq_client *client,
                                  const struct fastmq_outgoing *request,
                                  uint32_t answers_max,
                                  uint64_t timeout_ns,
                                  struct fastmq_batch **out_answers);

// Opens the reply stream of a request.
//
// `token` is that of the request's message, also after its batch is gone or its callback has
// returned. `*out` is yours until fastmq_reply_stream_close. Safe from any thread. It ends when
// the subscription ends by which the request came.
// Returns OK, NOT_FOUND (nobody waits for an answer), UNSUPPORTED (the asker takes no stream:
// answer with fastmq_reply), EXISTS (it was opened before), CANCELLED (the subscription has
// ended), INVALID, NO_MEMORY, CLOSED, MISUSE.
//
// # Safety
// `out` is writable.
fastmq_status fastmq_reply_stream_open(struct fastmq_client *client,
                                       uint64_t token,
                                       struct fastmq_reply_stream **out);

// Says how many replies the asker has granted that were not sent.
//
// Sends nothing and does not block: the way to learn that nobody waits for more. One thread at a
// time.
// Returns OK (also with 0 replies), CANCELLED (the asker has cancelled or closed, a deadline has
// passed, or the subscription has ended), MISUSE (the stream was ended), CLOSED, INVALID.
//
// # Safety
// `out_replies` is writable; no other call uses the stream.
fastmq_status fastmq_reply_stream_credit(struct fastmq_reply_stream *stream, uint64_t *out_replies);

// Sends one reply.
//
// `payload` is borrowed until the call returns, which does not block. Replies keep their order.
// After AGAIN a loop is told by FASTMQ_READY_ROOM of fastmq_dispatch on the responder's client
// when to try again. One thread at a time.
// Returns OK, AGAIN (the asker has granted no more replies, or has no room), CANCELLED (nobody
// waits for more), MISUSE (the stream was ended), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, INVALID.
//
// # Safety
// `payload` is readable; no other call uses the stream.
fastmq_status fastmq_reply_stream_send(struct fastmq_reply_stream *stream,
                                       struct fastmq_bytes payload);

// Sends one reply with a payload and headers.
//
// The other fields of `reply` must be empty. As fastmq_reply_stream_send.
//
// # Safety
// `reply` is NULL or readable for its `struct_size`, and so are its byte ranges; no other call
// uses the stream.
fastmq_status fastmq_reply_stream_send_message(struct fastmq_reply_stream *stream,
                                               const struct fastmq_outgoing *reply);

// Sends one reply, waiting for credit and room for at most `timeout_ns`.
//
// As fastmq_reply_stream_send, but it may block. A callback that runs inside the asker's own
// submit must not call it.
// Returns as fastmq_reply_stream_send, and TIMEOUT, and MISUSE inside the asker's submit.
//
// # Safety
// As for fastmq_reply_stream_send.
fastmq_status fastmq_reply_stream_send_wait(struct fastmq_reply_stream *stream,
                                            struct fastmq_bytes payload,
                                            uint64_t timeout_ns);

// Ends a reply stream: behind the last reply the asker receives a message without a payload, with
// `status`, or FASTMQ_END for FASTMQ_OK.
//
// `status` is any fastmq_status. Needs no credit and no room, and does not block. The handle is
// still yours to close. One thread at a time.
// Returns OK, CANCELLED (the other side has ended it), MISUSE (the stream was ended), CLOSED,
// INVALID.
//
// # Safety
// No other call uses the stream.
fastmq_status fastmq_reply_stream_end(struct fastmq_reply_stream *stream, uint32_t status);

// Closes a reply stream; one that was not ended ends with FASTMQ_CANCELLED.
//
// Takes NULL. In a forked child it ends the handle only.
//
// # Safety
// None: any value of `stream` is checked.
void fastmq_reply_stream_close(struct fastmq_reply_stream *stream);

// Publishes one message by subject to every subscription whose pattern matches, and to one member
// of each group.
//
// `subject` and `payload` are borrowed until the call returns, which does not block. Safe from any
// thread; each thread's messages keep their order.
// Returns OK, AGAIN (a queue is full, and nobody got the message), INVALID, DENIED (the subject
// begins with $SYS), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
//
// # Safety
// Both byte ranges are readable.
fastmq_status fastmq_publish(struct fastmq_client *client,
                             struct fastmq_bytes subject,
                             struct fastmq_bytes payload);

// Publishes one message with all its fields.
//
// As fastmq_publish; `message` and what it points to are borrowed until the call returns.
//
// # Safety
// `message` is NULL or readable for its `struct_size`, and so are its byte ranges.
fastmq_status fastmq_publish_message(struct fastmq_client *client,
                                     const struct fastmq_outgoing *message);

// Forgets the last value of a subject (FASTMQ_OUTGOING_KEEP_LAST).
//
// Who subscribed before may still receive it. A publish that is under way may set another. Safe
// from any thread.
// Returns OK, NOT_FOUND (none is kept), INVALID (not a subject), CLOSED, MISUSE.
//
// # Safety
// `subject` is readable.
fastmq_status fastmq_forget_last(struct fastmq_client *client, struct fastmq_bytes subject);

// Publishes several messages in order, up to the first that is refused.
//
// `*out_accepted` says how many were published. As fastmq_publish; all messages have the same
// `struct_size`, which is their distance.
//
// # Safety
// `messages` is readable for `count` structs, and so are their byte ranges; `out_accepted` is
// writable.
fastmq_status fastmq_publish_batch(struct fastmq_client *client,
                                   const struct fastmq_outgoing *messages,
                                   size_t count,
                                   size_t *out_accepted);

// Publishes one message, waiting for room for at most `timeout_ns`.
//
// As fastmq_publish_message, but it may block. A callback of the full queue must not call it.
// Returns as fastmq_publish, and TIMEOUT, and MISUSE inside a callback of the full queue.
//
// # Safety
// As for fastmq_publish_message.
fastmq_status fastmq_publish_wait(struct fastmq_client *client,
                                  const struct fastmq_outgoing *message,
                                  uint64_t timeout_ns);

// Opens a publisher for one subject.
//
// `subject` is copied. `*out` is yours until fastmq_publisher_close. Safe from any thread.
// Returns OK, INVALID, DENIED (the subject begins with $SYS), CLOSED, NO_MEMORY, MISUSE.
//
// # Safety
// `subject` is readable; `out` is writable.
fastmq_status fastmq_publisher_open(struct fastmq_client *client,
                                    struct fastmq_bytes subject,
                                    struct fastmq_publisher **out);

// Publishes one payload to the publisher's subject.
//
// `payload` is borrowed until the call returns, which does not block. One thread at a time.
// Returns as fastmq_publish.
//
// # Safety
// `payload` is readable; no other call uses the publisher.
fastmq_status fastmq_publisher_publish(struct fastmq_publisher *publisher,
                                       struct fastmq_bytes payload);

// Publishes one message with all its fields; its subject must be empty.
//
// As fastmq_publisher_publish; `message` and what it points to are borrowed until the call
// returns.
//
// # Safety
// As for fastmq_publish_message; no other call uses the publisher.
fastmq_status fastmq_publisher_publish_message(struct fastmq_publisher *publisher,
                                               const struct fastmq_outgoing *message);

// Publishes several payloads in order, up to the first that is refused.
//
// `*out_accepted` says how many were published. Readers may see them all at once. As
// fastmq_publisher_publish.
//
// # Safety
// `payloads` is readable for `count` structs, and so are their byte ranges; `out_accepted` is
// writable; no other call uses the publisher.
fastmq_status fastmq_publisher_publish_batch(struct fastmq_publisher *publisher,
                                             const struct fastmq_bytes *payloads,
                                             size_t count,
                                             size_t *out_accepted);

// Publishes one payload, waiting for room for at most `timeout_ns`.
//
// As fastmq_publisher_publish, but it may block. A callback of the full queue must not call it.
// Returns as fastmq_publish, and TIMEOUT, and MISUSE inside a callback of the full queue.
//
// # Safety
// As for fastmq_publisher_publish.
fastmq_status fastmq_publisher_publish_wait(struct fastmq_publisher *publisher,
                                            struct fastmq_bytes payload,
                                            uint64_t timeout_ns);

// Claims room for one payload of at most `size` bytes, to be written in place and committed.
//
// `*out` is yours to write until fastmq_publisher_commit or fastmq_publisher_abandon is called,
// whatever the commit returns, or the publisher is closed; it is aligned to 8 bytes, and what is
// there at first is unspecified. A publisher has one claim at a time and publishes nothing else
// meanwhile: MISUSE. One that is never committed keeps nobody from anything. Does not block. One
// thread at a time.
// Returns OK, AGAIN (a queue is full), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE, INVALID.
//
// # Safety
// `out` is writable; no other call uses the publisher; nothing is written to `*out` later than
// said above, nor behind its `size` bytes.
fastmq_status fastmq_publisher_claim(struct fastmq_publisher *publisher,
                                     size_t size,
                                     uint8_t **out);

// Publishes the first `size` bytes of the publisher's open claim to whoever subscribes now.
//
// Whatever is not OK leaves the claim open with its bytes as they are: commit it again or abandon
// it. Does not block. One thread at a time.
// Returns as fastmq_publish, and INVALID for more bytes than were claimed, and MISUSE without a
// claim. AGAIN is rare, as there was room for the claim: a queue came since, or shares the room
// that it had with other publishers.
//
// # Safety
// No other call uses the publisher.
fastmq_status fastmq_publisher_commit(struct fastmq_publisher *publisher, size_t size);

// Gives the publisher's open claim back unpublished; without one it does nothing.
//
// Takes NULL. One thread at a time.
//
// # Safety
// No other call uses the publisher.
void fastmq_publisher_abandon(struct fastmq_publisher *publisher);

// Closes a publisher; what it published stays, an open claim is abandoned.
//
// Takes NULL. Inside a callback of its own publish it is freed when that publish returns. In a
// forked child it ends the handle only.
//
// # Safety
// None: any value of `publisher` is checked.
void fastmq_publisher_close(struct fastmq_publisher *publisher);

// Opens a queue that several subscriptions may feed.
//
// `options` is borrowed until the call returns; NULL: the defaults. `*out` is yours until
// fastmq_queue_close. Safe from any thread.
// Returns OK, INVALID, CLOSED, NO_MEMORY, MISUSE.
//
// # Safety
// `options` is NULL or readable for its `struct_size`; `out` is writable.
fastmq_status fastmq_queue_open(struct fastmq_client *client,
                                const struct fastmq_queue_options *options,
                                struct fastmq_queue **out);

// Gives the queue's descriptor for epoll or poll: readable exactly while there is something to
// receive.
//
// The descriptor is the library's: only wait on it. Safe from any thread.
// Returns -1 on failure: IO, CLOSED, INVALID, MISUSE in fastmq_last_error.
//
// # Safety
// None: any value of `queue` is checked.
int32_t fastmq_queue_fd(struct fastmq_queue *queue);

// Receives up to `message_max` messages (0: as many as a batch holds), waiting for the first for
// at most `timeout_ns`.
//
// `*out` is never an empty batch, and yours until fastmq_batch_free; a queue has at most one open
// batch. One thread at a time.
// Returns OK, AGAIN (nothing is there, and the time-out is 0), TIMEOUT, END (the client was
// drained), NO_MEMORY, CLOSED, CORRUPT, INVALID, MISUSE (a batch is open, or another thread
// receives).
//
// # Safety
// `out` is writable.
fastmq_status fastmq_receive(struct fastmq_queue *queue,
                             uint32_t message_max,
                             uint64_t timeout_ns,
                             struct fastmq_batch **out);

// Waits until one of `count` queues (1 to 1,024) has something to receive, and says which.
//
// `*out_index` gets its place in `queues`; a receive there does not wait, though it may say AGAIN
// if the messages have expired. The look begins behind the queue that this thread's last
// wait found, so that none is passed over. Waits as the most eager of the queues does; each is
// received from by this thread only meanwhile. The queues may belong to several clients, and
// `queues` is borrowed until the call returns.
// Returns OK, AGAIN (nothing is there, and the time-out is 0), TIMEOUT, END (a queue is empty, and
// its client was drained), CLOSED (so is a queue or its client), NO_MEMORY, INVALID, MISUSE (a
// handle is not open, also if it is closed meanwhile; a batch is open, or another thread
// receives).
//
// # Safety
// `queues` is readable for `count` handles; `out_index` is writable.
fastmq_status fastmq_wait_any(struct fastmq_queue *const *queues,
                              size_t count,
                              uint64_t timeout_ns,
                              size_t *out_index);

// Closes a queue and ends the subscriptions that feed it; a receive that waits returns CLOSED.
//
// Takes NULL. An open batch stays readable until it is freed. Safe from any thread. The queue of
// a subscription is closed by fastmq_unsubscribe. In a forked child it ends the handle only.
//
// # Safety
// None: any value of `queue` is checked.
void fastmq_queue_close(struct fastmq_queue *queue);

// Asks and waits for the answer for at most `timeout_ns`.
//
// `request` and what it points to are borrowed until the call returns. `*out_reply` is a batch of
// one, yours until fastmq_batch_free; the responder's status is in its message. Safe from any
// thread.
// Returns OK, NO_RESPONDER, BUSY, TIMEOUT, CANCELLED, INVALID, DENIED (the subject begins with
// $SYS), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE; a client of a server also DISCONNECTED
// (the connection broke: it may or may not have been handled) and UNAVAILABLE (there is none).
//
// # Safety
// As for fastmq_publish_message; `out_reply` is writable.
fastmq_status fastmq_request(struct fastmq_client *client,
                             const struct fastmq_outgoing *request,
                             uint64_t timeout_ns,
                             struct fastmq_batch **out_reply);

// Asks and writes the answer's payload to `reply`.
//
// `*out_size` is the payload's size, also when it is larger than `reply_capacity`. Everything is
// borrowed until the call returns; until then nobody else reads or writes `reply`, which must not
// overlap the subject or the payload: a responder on this thread answers straight into it. Safe
// from any thread.
// Returns the responder's status; TOO_LARGE (larger than `reply_capacity`); else as
// fastmq_request.
//
// # Safety
// Both byte ranges are readable; `reply` is writable for `reply_capacity` bytes; `out_size` is
// writable.
fastmq_status fastmq_request_into(struct fastmq_client *client,
                                  struct fastmq_bytes subject,
                                  struct fastmq_bytes payload,
                                  uint64_t timeout_ns,
                                  void *reply,
                                  size_t reply_capacity,
                                  size_t *out_size);

// Answers a request with a payload and status OK.
//
// `token` is that of the request's message. `payload` is borrowed until the call returns, which
// does not block. Safe from any thread.
// Returns OK, AGAIN (the asker has no room), NOT_FOUND (the asker is gone), TOO_LARGE, INVALID,
// NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
//
// # Safety
// `payload` is readable.
fastmq_status fastmq_reply(struct fastmq_client *client,
                           uint64_t token,
                           struct fastmq_bytes payload);

// Answers a request with a payload, headers and a status.
//
// The subject of `answer` must be empty; `status` is any fastmq_status. As fastmq_reply.
//
// # Safety
// `answer` is NULL or readable for its `struct_size`, and so are its byte ranges.
fastmq_status fastmq_reply_message(struct fastmq_client *client,
                                   uint64_t token,
                                   const struct fastmq_outgoing *answer,
                                   uint32_t status);

// Opens a requester.
//
// `options` is borrowed until the call returns; NULL: the defaults. `*out` is yours until
// fastmq_requester_close. Safe from any thread.
// Returns OK, INVALID, DENIED (its subject begins with $SYS), CLOSED, NO_SPACE, NO_MEMORY, MISUSE.
//
// # Safety
// `options` is NULL or readable for its `struct_size`, and so is its subject; `out` is writable.
fastmq_status fastmq_requester_open(struct fastmq_client *client,
                                    const struct fastmq_requester_options *options,
                                    struct fastmq_requester **out);

// Sends a request to the requester's own subject.
//
// `payload` is borrowed until the call returns, which does not block. After OK exactly one final
// answer comes by fastmq_requester_receive with this token: the responder's, or NO_RESPONDER,
// BUSY, TIMEOUT, CANCELLED, or DISCONNECTED (a client of a server: the connection broke). One
// thread at a time.
// Returns OK, AGAIN (in_flight_max are in flight, or as many as the connection to a server takes
// now: receive answers first), INVALID, DENIED (the subject begins with $SYS), TOO_LARGE,
// UNAVAILABLE (a client of a server without a connection), NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
//
// # Safety
// `payload` is readable; no other call uses the requester.
fastmq_status fastmq_requester_submit(struct fastmq_requester *requester,
                                      struct fastmq_bytes payload,
                                      uint64_t token,
                                      uint64_t timeout_ns);

// Sends a request to a subject that it names.
//
// As fastmq_requester_submit, for a requester without a subject of its own or another subject.
//
// # Safety
// Both byte ranges are readable; no other call uses the requester.
fastmq_status fastmq_requester_submit_to(struct fastmq_requester *requester,
                                         struct fastmq_bytes subject,
                                         struct fastmq_bytes payload,
                                         uint64_t token,
                                         uint64_t timeout_ns);

// Sends a request with all its fields; its token is that of the struct.
//
// As fastmq_requester_submit_to; `request` and what it points to are borrowed until the call
// returns.
//
// # Safety
// As for fastmq_publish_message; no other call uses the requester.
fastmq_status fastmq_requester_submit_message(struct fastmq_requester *requester,
                                              const struct fastmq_outgoing *request,
                                              uint64_t timeout_ns);

// Receives up to `reply_max` answers (0: as many as a batch holds), waiting for the first for at
// most `timeout_ns`.
//
// `*out` is yours until fastmq_batch_free; a requester has at most one open batch. Each message's
// `token` is that of its submit, its `status` the fate. One thread at a time.
// Returns OK, AGAIN (nothing is there, and the time-out is 0), TIMEOUT, NO_MEMORY, CLOSED,
// INVALID, MISUSE.
//
// # Safety
// `out` is writable; no other call uses the requester.
fastmq_status fastmq_requester_receive(struct fastmq_requester *requester,
                                       uint32_t reply_max,
                                       uint64_t timeout_ns,
                                       struct fastmq_batch **out);

// Asks the requester's own subject and writes the answer's payload to `reply`.
//
// As fastmq_request_into, by handle. One thread at a time.
//
// # Safety
// `payload` is readable; `reply` is writable for `reply_capacity` bytes; `out_size` is writable;
// no other call uses the requester.
fastmq_status fastmq_requester_request_into(struct fastmq_requester *requester,
                                            struct fastmq_bytes payload,
                                            uint64_t timeout_ns,
                                            void *reply,
                                            size_t reply_capacity,
                                            size_t *out_size);

// Ends a request: its answer arrives with CANCELLED.
//
// One thread at a time.
// Returns OK, NOT_FOUND (no request in flight has this token), CLOSED, INVALID, MISUSE.
//
// # Safety
// No other call uses the requester.
fastmq_status fastmq_requester_cancel(struct fastmq_requester *requester, uint64_t token);

// Says how many requests have no final answer yet, those with one that was not received included.
//
// One thread at a time. Returns 0 on failure: CLOSED, INVALID, MISUSE in fastmq_last_error.
//
// # Safety
// No other call uses the requester.
uint32_t fastmq_requester_in_flight(struct fastmq_requester *requester);

// Gives the requester's descriptor for epoll or poll: readable exactly while there is an answer
// to receive or a request has timed out.
//
// The descriptor is the library's: only wait on it. One thread at a time.
// Returns -1 on failure: IO, CLOSED, INVALID, MISUSE in fastmq_last_error.
//
// # Safety
// No other call uses the requester.
int32_t fastmq_requester_fd(struct fastmq_requester *requester);

// Closes a requester; requests in flight are given up.
//
// Takes NULL. An open batch stays readable until it is freed. Inside a callback of its own submit
// it is freed when that returns. In a forked child it ends the handle only.
//
// # Safety
// None: any value of `requester` is checked.
void fastmq_requester_close(struct fastmq_requester *requester);

// Serves other processes: each that connects to one of `urls` uses the client's broker, beside
// this process.
//
// `urls` ends with a zero: `unix:/path`, `shm:NAME` or `tcp://host:port`, with commas between
// several. `shm:` is a Unix socket over which each client gets 8 MiB of memory that it shares with
// this process: NAME is in `$WORK_ROOT`, else in `$XDG_RUNTIME_DIR/fastmq`, else in a directory of
// this user's own under the temporary directory, which nobody else may write to; `shm:/path` is
// explicit. The host is an IP address or localhost; port 0 takes a free one, which
// fastmq_server_url tells. A Unix socket is for this user alone (mode 0600); a socket file that
// nobody answers at is replaced. It listens when the call returns, on threads of its own, until
// fastmq_server_close or fastmq_close. With sockets in the options `urls` may be NULL.
//
// `urls` and `options` are borrowed until the call returns; NULL options: the defaults. `*out` is
// yours until fastmq_server_close. Safe from any thread.
// Returns OK, INVALID (a URL or an option; the sentence says which), DENIED (other machines would
// reach it, and FASTMQ_LISTEN_INSECURE is not set; or the right to the thread's options is
// missing), UNSUPPORTED (the client is one of another server, or no thread can be started), IO (an
// address is in use, or the system refuses), CLOSED, NO_MEMORY, MISUSE.
//
// # Safety
// `urls` is NULL or ends with a zero; `options` is NULL or readable for its `struct_size`, and so
// is what it points to; `out` is writable.
fastmq_status fastmq_listen(struct fastmq_client *client,
                            const char *urls,
                            const struct fastmq_listen_options *options,
                            struct fastmq_server **out);

// Gives the URL of the address with this index, from 0, in the order of fastmq_listen's, then
// those of its sockets; NULL behind the last one.
//
// It ends with a zero, and is yours to read until fastmq_server_close. Safe from any thread.
// Returns NULL on failure too: NOT_FOUND (there are no more), CLOSED, INVALID, MISUSE in
// fastmq_last_error.
//
// # Safety
// None: any value of `server` is checked.
const char *fastmq_server_url(struct fastmq_server *server, size_t index);

// Takes over the `token` and the `subscriptions_max` of `options`, for who connects and what is
// subscribed from now on; the others are not looked at.
//
// Connections stay as they are. `options` is borrowed until the call returns; NULL: the defaults.
// Safe from any thread; does not block.
// Returns OK, INVALID, CLOSED, NO_MEMORY, MISUSE.
//
// # Safety
// `options` is NULL or readable for its `struct_size`, and so is its token.
fastmq_status fastmq_server_change(struct fastmq_server *server,
                                   const struct fastmq_listen_options *options);

// Takes no more connections, asks the clients to finish, and closes when they have gone or after
// `timeout_ns`; 0: at once.
//
// Takes NULL. The client stays open, and what local users have is left as it is. Blocks until the
// server has closed, for the last bytes some seconds beyond the time-out at most. Safe from any
// thread; a callback that a thread of the server runs is not waited for. In a forked child it
// ends the handle only.
//
// # Safety
// None: any value of `server` is checked.
void fastmq_server_close(struct fastmq_server *server, uint64_t timeout_ns);

// Gives the figures of a client.
//
// Writes `out->struct_size` bytes at most. Safe from any thread; consistent only when nothing is
// under way.
// Returns OK, INVALID, MISUSE.
//
// # Safety
// `out` is NULL or writable for its `struct_size`.
fastmq_status fastmq_client_statistics_read(struct fastmq_client *client,
                                            struct fastmq_client_statistics *out);

// Gives the figures of a queue.
//
// As fastmq_client_statistics_read. Returns OK, CLOSED, INVALID, MISUSE.
//
// # Safety
// `out` is NULL or writable for its `struct_size`.
fastmq_status fastmq_queue_statistics_read(struct fastmq_queue *queue,
                                           struct fastmq_queue_statistics *out);

// Gives the figures of a subscription.
//
// As fastmq_client_statistics_read. Returns OK, CLOSED, INVALID, MISUSE.
//
// # Safety
// `out` is NULL or writable for its `struct_size`.
fastmq_status fastmq_subscription_statistics_read(struct fastmq_subscription *subscription,
                                                  struct fastmq_subscription_statistics *out);

// Says which ABI the library has: `major << 16 | minor`.
//
// Safe from any thread, also after fork.
uint32_t fastmq_abi(void);

// Gives the version of the library, such as "0.1.0".
//
// The text lives as long as the library is loaded. Safe from any thread, also after fork.
const char *fastmq_version(void);

// Gives the name of a status, such as "FASTMQ_AGAIN", or "FASTMQ_UNKNOWN".
//
// The text lives as long as the library is loaded. Safe from any thread, also after fork.
const char *fastmq_status_name(uint32_t status);

// Gives one line about a status for people.
//
// The text lives as long as the library is loaded. Safe from any thread, also after fork.
const char *fastmq_status_text(uint32_t status);

// Subscribes to every subject that matches `pattern`.
//
// A pattern that begins with the token $SYS is told by the library who subscribes and who leaves:
// see FASTMQ_SUBJECT_JOINED. Wildcards in the first token match no such subject.
//
// `pattern` and `options` are borrowed until the call returns; NULL options: a queue of its own.
// `*out` is yours until fastmq_unsubscribe. Safe from any thread, callbacks included.
// A client of a server waits for the server's answer for at most `operation_timeout_ns`, and also
// returns what that is, UNAVAILABLE or TIMEOUT.
// Returns OK, INVALID, CONFLICT (the group has another group_mode), CLOSED, NO_MEMORY, NO_SPACE (a
// key-shared group has 1,024 members), UNSUPPORTED, MISUSE.
//
// # Safety
// `pattern` is readable; `options` is NULL or readable for its `struct_size`; `on_message` may be
// called with `context` until fastmq_unsubscribe has returned; `out` is writable.
fastmq_status fastmq_subscribe(struct fastmq_client *client,
                               struct fastmq_bytes pattern,
                               const struct fastmq_subscribe_options *options,
                               struct fastmq_subscription **out);

// Gives the queue that a subscription feeds.
//
// A queue that the subscription owns is lent: fastmq_unsubscribe closes it. Safe from any thread.
// Returns NULL on failure: INVALID, MISUSE (its messages go to a callback), NO_MEMORY in
// fastmq_last_error.
//
// # Safety
// None: any value of `subscription` is checked.
struct fastmq_queue *fastmq_subscription_queue(struct fastmq_subscription *subscription);

// Gives the number that a subscription's messages carry as `subscription_id`.
//
// Safe from any thread. Returns 0 on failure: INVALID, MISUSE in fastmq_last_error.
//
// # Safety
// None: any value of `subscription` is checked.
uint32_t fastmq_subscription_id(struct fastmq_subscription *subscription);

// Ends a subscription, and its queue if it owns that.
//
// Takes NULL. When it returns, its callback does not run and will not, unless that callback is
// what calls; it waits for at most `close_timeout_ns`, and so do two callbacks on two threads that
// end each other's subscriptions. Safe from any thread. In a forked child it ends the handle only.
//
// # Safety
// None: any value of `subscription` is checked.
void fastmq_unsubscribe(struct fastmq_subscription *subscription);

// Makes the calling thread what `options` say: its name, its cores, its scheduling.
//
// `options` is borrowed until the call returns; NULL: nothing changes. In either case the library
// learns whether this is a real-time thread (FIFO, RR), which pauses when it spins: 50 us after
// 10 ms. A thread that became one by other means calls this once. Safe from any thread; it does
// not block, and no client is needed.
// Returns OK, INVALID (a core that is not there or not for this process, a priority out of range),
// DENIED (the right is missing; the sentence names the cure), IO, MISUSE; after a failure nothing
// has changed.
//
// # Safety
// `options` is NULL or readable for its `struct_size`, and so is its `name`.
fastmq_status fastmq_thread_setup(const struct fastmq_thread_options *options);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FASTMQ_H */
