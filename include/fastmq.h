/* DRAFT written by hand so that programs can be written against it; replaced by the generated header. */
#ifndef FASTMQ_H
#define FASTMQ_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* generated: typedef uint32_t + enum of the same name (cbindgen, repr(u32)) */
enum fastmq_status {
    FASTMQ_OK = 0, FASTMQ_AGAIN = 1, FASTMQ_TIMEOUT = 2, FASTMQ_END = 3, FASTMQ_CANCELLED = 4,
    FASTMQ_INVALID = 10, FASTMQ_MISUSE = 11, FASTMQ_TOO_LARGE = 12, FASTMQ_UNSUPPORTED = 13, FASTMQ_CLOSED = 14,
    FASTMQ_NOT_FOUND = 20, FASTMQ_EXISTS = 21, FASTMQ_NO_RESPONDER = 22, FASTMQ_BUSY = 23, FASTMQ_CONFLICT = 24,
    FASTMQ_UNAVAILABLE = 30, FASTMQ_DISCONNECTED = 31, FASTMQ_SLOW_CONSUMER = 32,
    FASTMQ_DENIED = 40, FASTMQ_NO_SPACE = 41, FASTMQ_CORRUPT = 42, FASTMQ_IO = 43, FASTMQ_NO_MEMORY = 44,
    FASTMQ_INTERNAL = 50
};
typedef uint32_t fastmq_status;

enum fastmq_policy { FASTMQ_POLICY_BACKPRESSURE = 0, FASTMQ_POLICY_DROP_OLDEST = 1, FASTMQ_POLICY_DROP_NEWEST = 2 };
typedef uint32_t fastmq_policy;

enum fastmq_wait { FASTMQ_WAIT_BALANCED = 0, FASTMQ_WAIT_LATENCY = 1, FASTMQ_WAIT_LOW_POWER = 2, FASTMQ_WAIT_BUSY_POLL = 3 };
typedef uint32_t fastmq_wait;

/* How a subscription's messages reach the application. */
enum fastmq_delivery {
    FASTMQ_DELIVERY_QUEUE = 0,    /* pulled with fastmq_receive */
    FASTMQ_DELIVERY_THREAD = 1,   /* on_message, on a thread of the library */
    FASTMQ_DELIVERY_DISPATCH = 2, /* on_message, inside fastmq_dispatch */
    FASTMQ_DELIVERY_INLINE = 3    /* on_message, on the publishing thread, no queue */
};
typedef uint32_t fastmq_delivery;

enum fastmq_message_flag { FASTMQ_MESSAGE_REDELIVERED = 1, FASTMQ_MESSAGE_MORE = 2, FASTMQ_MESSAGE_END = 4, FASTMQ_MESSAGE_REQUEST = 8 };
enum fastmq_ready { FASTMQ_READY_MESSAGES = 1, FASTMQ_READY_ANSWERS = 2, FASTMQ_READY_ROOM = 4, FASTMQ_READY_DEADLINE = 8, FASTMQ_READY_MORE = 16 };
enum fastmq_log_level { FASTMQ_LOG_OFF = 0, FASTMQ_LOG_ERROR = 1, FASTMQ_LOG_WARN = 2, FASTMQ_LOG_INFO = 3, FASTMQ_LOG_DEBUG = 4 };

#define FASTMQ_FOREVER UINT64_MAX

typedef struct fastmq_client fastmq_client;
typedef struct fastmq_queue fastmq_queue;
typedef struct fastmq_subscription fastmq_subscription;
typedef struct fastmq_publisher fastmq_publisher;
typedef struct fastmq_requester fastmq_requester;
typedef struct fastmq_batch fastmq_batch;
typedef struct fastmq_headers fastmq_headers;

typedef struct fastmq_bytes { const uint8_t *data; size_t size; } fastmq_bytes;

typedef struct fastmq_message { /* frozen, 144 bytes: docs/formats.md §3 */
    fastmq_bytes subject, payload, reply_to, headers, key;
    uint64_t sequence, timestamp_ns, token;
    uint32_t delivery_count, lost_before, status, subscription_id, flags, reserved0;
    uint64_t tag, reserved1;
} fastmq_message;

typedef struct fastmq_outgoing {
    uint32_t struct_size, flags;      /* flags: 0, reserved */
    fastmq_bytes subject, payload, reply_to, key;
    const fastmq_headers *headers;    /* may be NULL */
    uint64_t token;                   /* requests: comes back with the answer */
    uint64_t ttl_ns;                  /* 0: for ever */
    uint32_t priority, reserved;      /* 0 */
} fastmq_outgoing;

typedef void (*fastmq_on_message)(const fastmq_message *message, void *context);
typedef void (*fastmq_on_log)(uint32_t level, const char *target, const char *text, void *context);

typedef struct fastmq_options {
    uint32_t struct_size, flags;      /* flags: 0 */
    uint64_t memory_max;              /* cap on the bytes of lanes and blocks; 0: no cap */
    uint64_t queue_capacity;          /* default capacity of a lane in bytes; 0: 8 MiB */
    uint64_t payload_max;             /* 0: 1 MiB; at most 64 MiB */
    fastmq_wait wait;                 /* default wait profile */
    uint32_t threads_max;             /* library threads for THREAD delivery; 0: 1 */
    uint64_t close_timeout_ns;        /* how long close waits for running callbacks; 0: 5 s */
} fastmq_options;

typedef struct fastmq_queue_options {
    uint32_t struct_size;
    fastmq_policy policy;
    uint64_t capacity;                /* bytes per lane, at most; 0: the client's default */
    fastmq_wait wait;                 /* 0: the client's default */
    uint32_t reserved;
} fastmq_queue_options;

typedef struct fastmq_subscribe_options {
    uint32_t struct_size;
    fastmq_delivery delivery;
    fastmq_bytes group;               /* empty: no group */
    fastmq_queue *queue;              /* NULL: a queue of its own */
    uint64_t tag;                     /* comes back in fastmq_message.tag */
    fastmq_on_message on_message;     /* THREAD, DISPATCH, INLINE */
    void *context;
} fastmq_subscribe_options;

typedef struct fastmq_requester_options {
    uint32_t struct_size;
    uint32_t in_flight_max;           /* 0: 1,024; at most 65,535 */
    fastmq_bytes subject;             /* empty: each submit names its own */
    fastmq_wait wait;
    uint32_t reserved;
} fastmq_requester_options;

typedef struct fastmq_client_statistics {
    uint32_t struct_size, threads;
    uint64_t published, delivered, dropped, expired, refused, requests, answers, late_answers;
    uint64_t memory, memory_high, queues, subscriptions, clock_calls, locks, parks, wakes;
} fastmq_client_statistics;

typedef struct fastmq_queue_statistics {
    uint32_t struct_size, lanes;
    uint64_t published, delivered, dropped, expired, pending, pending_bytes, high_water_bytes, memory, waits, wakes;
} fastmq_queue_statistics;

typedef struct fastmq_subscription_statistics {
    uint32_t struct_size, id;
    uint64_t delivered, delivered_bytes, dropped;
} fastmq_subscription_statistics;

/* library */
uint32_t fastmq_abi(void);
const char *fastmq_version(void);
const char *fastmq_status_name(uint32_t status);   /* "FASTMQ_AGAIN" */
const char *fastmq_status_text(uint32_t status);   /* one line for people */
const char *fastmq_last_error(void);               /* this thread's last failure, as a sentence; "" if none */
void fastmq_set_log(uint32_t level, fastmq_on_log on_log, void *context);

/* open, drain, close */
fastmq_status fastmq_open(const fastmq_options *options, fastmq_client **out);
fastmq_status fastmq_drain(fastmq_client *client, uint64_t timeout_ns);
void fastmq_close(fastmq_client *client);
fastmq_status fastmq_client_statistics_read(fastmq_client *client, fastmq_client_statistics *out);

/* publish */
fastmq_status fastmq_publish(fastmq_client *client, fastmq_bytes subject, fastmq_bytes payload);
fastmq_status fastmq_publish_message(fastmq_client *client, const fastmq_outgoing *message);
fastmq_status fastmq_publish_batch(fastmq_client *client, const fastmq_outgoing *messages, size_t count, size_t *out_accepted);
fastmq_status fastmq_publish_wait(fastmq_client *client, const fastmq_outgoing *message, uint64_t timeout_ns);
fastmq_status fastmq_publisher_open(fastmq_client *client, fastmq_bytes subject, fastmq_publisher **out);
fastmq_status fastmq_publisher_publish(fastmq_publisher *publisher, fastmq_bytes payload);
fastmq_status fastmq_publisher_publish_message(fastmq_publisher *publisher, const fastmq_outgoing *message); /* its subject must be empty */
fastmq_status fastmq_publisher_publish_batch(fastmq_publisher *publisher, const fastmq_bytes *payloads, size_t count, size_t *out_accepted);
fastmq_status fastmq_publisher_publish_wait(fastmq_publisher *publisher, fastmq_bytes payload, uint64_t timeout_ns);
void fastmq_publisher_close(fastmq_publisher *publisher);

/* headers */
fastmq_status fastmq_headers_open(fastmq_headers **out);
fastmq_status fastmq_headers_add(fastmq_headers *headers, fastmq_bytes name, fastmq_bytes value);
void fastmq_headers_clear(fastmq_headers *headers);
void fastmq_headers_close(fastmq_headers *headers);
fastmq_status fastmq_headers_get(fastmq_bytes headers, fastmq_bytes name, fastmq_bytes *out_value);  /* NOT_FOUND */
fastmq_status fastmq_headers_next(fastmq_bytes headers, size_t *cursor, fastmq_bytes *out_name, fastmq_bytes *out_value); /* END; cursor starts at 0 */

/* queues, subscriptions, receiving */
fastmq_status fastmq_queue_open(fastmq_client *client, const fastmq_queue_options *options, fastmq_queue **out);
fastmq_status fastmq_queue_statistics_read(fastmq_queue *queue, fastmq_queue_statistics *out);
int fastmq_queue_fd(fastmq_queue *queue);
void fastmq_queue_close(fastmq_queue *queue);
fastmq_status fastmq_subscribe(fastmq_client *client, fastmq_bytes pattern, const fastmq_subscribe_options *options, fastmq_subscription **out);
fastmq_queue *fastmq_subscription_queue(fastmq_subscription *subscription);  /* borrowed when the subscription owns it: closed by fastmq_unsubscribe */
uint32_t fastmq_subscription_id(fastmq_subscription *subscription);
fastmq_status fastmq_subscription_statistics_read(fastmq_subscription *subscription, fastmq_subscription_statistics *out);
void fastmq_unsubscribe(fastmq_subscription *subscription);
fastmq_status fastmq_receive(fastmq_queue *queue, uint32_t message_max, uint64_t timeout_ns, fastmq_batch **out);
const fastmq_message *fastmq_batch_messages(const fastmq_batch *batch, size_t *out_count);
fastmq_status fastmq_batch_detach(fastmq_batch *batch, fastmq_batch **out);  /* a copy that outlives the batch; closes `batch` */
void fastmq_batch_free(fastmq_batch *batch);

/* foreign loops and threadless use */
int fastmq_fd(fastmq_client *client);
fastmq_status fastmq_dispatch(fastmq_client *client, uint32_t message_max, uint64_t budget_ns, uint32_t *out_ready);
uint64_t fastmq_next_deadline(fastmq_client *client); /* nanoseconds from now; FASTMQ_FOREVER: none */

/* request and reply */
fastmq_status fastmq_request(fastmq_client *client, const fastmq_outgoing *request, uint64_t timeout_ns, fastmq_batch **out_reply);
fastmq_status fastmq_request_into(fastmq_client *client, fastmq_bytes subject, fastmq_bytes payload, uint64_t timeout_ns, void *reply, size_t reply_capacity, size_t *out_size);
fastmq_status fastmq_reply(fastmq_client *client, uint64_t token, fastmq_bytes payload);
fastmq_status fastmq_reply_message(fastmq_client *client, uint64_t token, const fastmq_outgoing *answer, uint32_t status);
fastmq_status fastmq_requester_open(fastmq_client *client, const fastmq_requester_options *options, fastmq_requester **out);
fastmq_status fastmq_requester_submit(fastmq_requester *requester, fastmq_bytes payload, uint64_t token, uint64_t timeout_ns);
fastmq_status fastmq_requester_submit_to(fastmq_requester *requester, fastmq_bytes subject, fastmq_bytes payload, uint64_t token, uint64_t timeout_ns);
fastmq_status fastmq_requester_submit_message(fastmq_requester *requester, const fastmq_outgoing *request, uint64_t timeout_ns);
fastmq_status fastmq_requester_receive(fastmq_requester *requester, uint32_t reply_max, uint64_t timeout_ns, fastmq_batch **out);
fastmq_status fastmq_requester_request_into(fastmq_requester *requester, fastmq_bytes payload, uint64_t timeout_ns, void *reply, size_t reply_capacity, size_t *out_size);
fastmq_status fastmq_requester_cancel(fastmq_requester *requester, uint64_t token); /* its answer arrives with CANCELLED */
uint32_t fastmq_requester_in_flight(fastmq_requester *requester);
int fastmq_requester_fd(fastmq_requester *requester);
void fastmq_requester_close(fastmq_requester *requester);
#ifdef __cplusplus
}
#endif
#endif
