/* The steps that most border tests take: open, subscribe, publish a number, wait for a thread.
 *
 * Every step that fails ends the test through NEED, so that the tests read as the promises alone.
 * Nothing here sleeps: threads meet at a `struct gate`, messages are waited for with a time-out.
 */
#ifndef FASTMQ_TESTS_STEPS_H
#define FASTMQ_TESTS_STEPS_H

#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
/* How long a test waits for what must come: never reached unless something is broken. */
#define PATIENCE (30 * SECOND)
/* The smallest ring that docs/formats.md §2 allows. */
#define SMALL_CAPACITY 4096

/* bytes */

static inline fastmq_bytes bytes(const void *data, size_t size)
{
    fastmq_bytes view = {data, size};
    return view;
}

static inline fastmq_bytes text(const char *string)
{
    return bytes(string, strlen(string));
}

static inline int same(fastmq_bytes view, const char *string)
{
    return view.size == strlen(string) && (view.size == 0
        || memcmp(view.data, string, view.size) == 0);
}

/* Test payloads begin with their number. */
static inline uint32_t number_of(const fastmq_message *message)
{
    uint32_t number = UINT32_MAX;
    if (message->payload.size >= sizeof number) {
        memcpy(&number, message->payload.data, sizeof number);
    }
    return number;
}

static inline fastmq_outgoing outgoing(const char *subject, fastmq_bytes payload)
{
    fastmq_outgoing message;
    memset(&message, 0, sizeof message);
    message.struct_size = sizeof message;
    message.subject = text(subject);
    message.payload = payload;
    return message;
}

/* handles */

static inline fastmq_client *open_client(void)
{
    fastmq_client *client = NULL;
    NEED(fastmq_open(NULL, &client) == FASTMQ_OK);
    return client;
}

/* A client whose own queues are small and which may start `threads_max` threads. */
static inline fastmq_client *open_small_client(uint32_t threads_max)
{
    fastmq_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    options.queue_capacity = SMALL_CAPACITY;
    options.threads_max = threads_max;
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    return client;
}

static inline fastmq_queue *open_queue(fastmq_client *client, fastmq_policy policy,
                                       uint64_t capacity)
{
    fastmq_queue_options options = {.struct_size = sizeof options};
    fastmq_queue *queue = NULL;
    options.policy = policy;
    options.capacity = capacity;
    NEED(fastmq_queue_open(client, &options, &queue) == FASTMQ_OK);
    return queue;
}

static inline fastmq_subscription *subscribe_with(fastmq_client *client, const char *pattern,
                                                  const fastmq_subscribe_options *options)
{
    fastmq_subscription *subscription = NULL;
    NEED(fastmq_subscribe(client, text(pattern), options, &subscription) == FASTMQ_OK);
    return subscription;
}

/* A subscription with a queue of its own. */
static inline fastmq_subscription *subscribe(fastmq_client *client, const char *pattern)
{
    return subscribe_with(client, pattern, NULL);
}

static inline fastmq_subscription *subscribe_on(fastmq_client *client, const char *pattern,
                                                fastmq_queue *queue, uint64_t tag)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.queue = queue;
    options.tag = tag;
    return subscribe_with(client, pattern, &options);
}

static inline fastmq_subscription *subscribe_call(fastmq_client *client, const char *pattern,
                                                  fastmq_delivery delivery,
                                                  fastmq_on_message on_message, void *context)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.delivery = delivery;
    options.on_message = on_message;
    options.context = context;
    return subscribe_with(client, pattern, &options);
}

static inline fastmq_publisher *open_publisher(fastmq_client *client, const char *subject)
{
    fastmq_publisher *publisher = NULL;
    NEED(fastmq_publisher_open(client, text(subject), &publisher) == FASTMQ_OK);
    return publisher;
}

static inline fastmq_requester *open_requester(fastmq_client *client, const char *subject,
                                               uint32_t in_flight_max)
{
    fastmq_requester_options options = {.struct_size = sizeof options};
    fastmq_requester *requester = NULL;
    options.subject = text(subject);
    options.in_flight_max = in_flight_max;
    NEED(fastmq_requester_open(client, &options, &requester) == FASTMQ_OK);
    return requester;
}

static inline fastmq_queue_statistics queue_figures(fastmq_queue *queue)
{
    fastmq_queue_statistics figures = {.struct_size = sizeof figures};
    NEED(fastmq_queue_statistics_read(queue, &figures) == FASTMQ_OK);
    return figures;
}

static inline fastmq_client_statistics client_figures(fastmq_client *client)
{
    fastmq_client_statistics figures = {.struct_size = sizeof figures};
    NEED(fastmq_client_statistics_read(client, &figures) == FASTMQ_OK);
    return figures;
}

/* messages */

static inline fastmq_status publish_number(fastmq_client *client, const char *subject,
                                           uint32_t number)
{
    return fastmq_publish(client, text(subject), bytes(&number, sizeof number));
}

/* A message of 200 bytes that begins with its number: about 18 of them fill a small queue. */
static inline fastmq_status publish_wide(fastmq_client *client, const char *subject,
                                         uint32_t number)
{
    uint8_t payload[200] = {0};
    memcpy(payload, &number, sizeof number);
    return fastmq_publish(client, text(subject), bytes(payload, sizeof payload));
}

/* Receives one batch that must be there at once; `*out_count` messages. */
static inline fastmq_batch *take(fastmq_queue *queue, uint32_t message_max,
                                 const fastmq_message **out_messages, size_t *out_count)
{
    fastmq_batch *batch = NULL;
    NEED(fastmq_receive(queue, message_max, 0, &batch) == FASTMQ_OK);
    *out_messages = fastmq_batch_messages(batch, out_count);
    NEED(*out_messages != NULL && *out_count >= 1);
    return batch;
}

/* Takes everything that is in the queue now and says how many messages it was. */
static inline size_t take_all(fastmq_queue *queue)
{
    size_t total = 0;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 256, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        fastmq_batch_messages(batch, &count);
        total += count;
        fastmq_batch_free(batch);
    }
    return total;
}

/* Lets `milliseconds` pass by waiting for a message that nobody sends. For expiry only, never to
 * let another thread get ahead. */
static inline void let_time_pass(fastmq_client *client, uint64_t milliseconds)
{
    fastmq_queue *empty = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    fastmq_batch *batch = NULL;
    NEED(fastmq_receive(empty, 1, milliseconds * MILLISECOND, &batch) == FASTMQ_TIMEOUT);
    fastmq_queue_close(empty);
}

/* threads */

/* A number that only grows, and can be waited for. */
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t count;
};
#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static inline void gate_add(struct gate *gate, uint64_t more)
{
    pthread_mutex_lock(&gate->mutex);
    gate->count += more;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

/* Waits until the gate has reached `count`; false when patience ends first. */
static inline int gate_wait(struct gate *gate, uint64_t count)
{
    struct timespec deadline;
    int failed = 0;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += (time_t)(PATIENCE / SECOND);
    pthread_mutex_lock(&gate->mutex);
    while (gate->count < count && failed != ETIMEDOUT) {
        failed = pthread_cond_timedwait(&gate->changed, &gate->mutex, &deadline);
    }
    failed = gate->count < count;
    pthread_mutex_unlock(&gate->mutex);
    return !failed;
}

static inline uint64_t gate_count(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    uint64_t count = gate->count;
    pthread_mutex_unlock(&gate->mutex);
    return count;
}

static inline pthread_t start_thread(void *(*body)(void *), void *context)
{
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, body, context) == 0);
    return thread;
}

#endif
