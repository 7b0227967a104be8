/* Drain and close: they end within their deadline from any thread, and give everything back.
 *
 * Decided here: drain refuses new publishes (CLOSED), lets the readers take what is queued, and is
 * OK when all of it is taken; readers then get END. Its TIMEOUT loses nothing: what is queued can
 * still be received, and drain can be called again. A receive that waits while its client is closed
 * returns CLOSED (or END, when its queue was drained).
 */
/* no asan: it keeps freed memory in quarantine, and this test watches resident memory return. */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

static void drain(void)
{
    enum { SENT = 5 };
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "drain");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_batch *batch = NULL;
    for (uint32_t i = 0; i < SENT; i++) {
        NEED(publish_number(client, "drain", i) == FASTMQ_OK);
    }
    CHECK_STATUS(fastmq_drain(client, 0), FASTMQ_TIMEOUT, "drain that may not wait, not drained");
    CHECK_STATUS(fastmq_drain(client, 10 * MILLISECOND), FASTMQ_TIMEOUT,
                 "a queue that nobody drains is a TIMEOUT");
    CHECK_STATUS(publish_number(client, "drain", 9), FASTMQ_CLOSED,
                 "a draining client takes no new message");
    CHECK_NUMBER(take_all(queue), SENT, "what was queued is still there");
    CHECK_STATUS(fastmq_drain(client, SECOND), FASTMQ_OK, "then drain is OK");
    CHECK_STATUS(fastmq_receive(queue, 1, FASTMQ_FOREVER, &batch), FASTMQ_END,
                 "and a receive says END");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

struct reader {
    fastmq_queue *queue;
    uint32_t received;
    fastmq_status ended_with;
};

static void *read_to_the_end(void *context)
{
    struct reader *reader = context;
    fastmq_batch *batch = NULL;
    while ((reader->ended_with = fastmq_receive(reader->queue, 64, FASTMQ_FOREVER, &batch))
           == FASTMQ_OK) {
        size_t count = 0;
        fastmq_batch_messages(batch, &count);
        reader->received += (uint32_t)count;
        fastmq_batch_free(batch);
    }
    return NULL;
}

static void drain_beside_readers(void)
{
    enum { SENT = 20000 };
    fastmq_client *client = open_small_client(0);
    fastmq_subscription *subscription = subscribe(client, "drain");
    struct reader reader = {fastmq_subscription_queue(subscription), 0, FASTMQ_OK};
    pthread_t thread = start_thread(read_to_the_end, &reader);
    for (uint32_t i = 0; i < SENT; i++) {
        fastmq_outgoing message = outgoing("drain", bytes(&i, sizeof i));
        NEED(fastmq_publish_wait(client, &message, PATIENCE) == FASTMQ_OK);
    }
    CHECK_STATUS(fastmq_drain(client, PATIENCE), FASTMQ_OK, "drain waits for a reader that reads");
    pthread_join(thread, NULL);
    CHECK_NUMBER(reader.received, SENT, "the reader got every message");
    CHECK_STATUS(reader.ended_with, FASTMQ_END, "and then END");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

static void close_beside_readers(void)
{
    enum { READERS = 4 };
    fastmq_client *client = open_client();
    fastmq_subscription *subscriptions[READERS];
    struct reader readers[READERS];
    pthread_t threads[READERS];
    uint32_t wrong = 0;
    for (size_t i = 0; i < READERS; i++) {
        subscriptions[i] = subscribe(client, "nothing.comes");
        readers[i] = (struct reader){fastmq_subscription_queue(subscriptions[i]), 0, FASTMQ_OK};
        threads[i] = start_thread(read_to_the_end, &readers[i]);
    }
    fastmq_close(client);
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        wrong += readers[i].ended_with != FASTMQ_CLOSED;
        fastmq_unsubscribe(subscriptions[i]);
    }
    CHECK_NUMBER(wrong, 0, "close wakes every waiting receive with CLOSED");
}

static void unsubscribe_beside_a_reader(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "nothing.comes");
    struct reader reader = {fastmq_subscription_queue(subscription), 0, FASTMQ_OK};
    pthread_t thread = start_thread(read_to_the_end, &reader);
    fastmq_unsubscribe(subscription);
    pthread_join(thread, NULL);
    CHECK(reader.ended_with == FASTMQ_CLOSED || reader.ended_with == FASTMQ_MISUSE,
          "unsubscribe wakes a receive on its own queue: CLOSED, or MISUSE when it came later");
    fastmq_close(client);
}

struct asker {
    fastmq_requester *requester;
    fastmq_status ended_with;
};

static void *wait_for_an_answer(void *context)
{
    struct asker *asker = context;
    fastmq_batch *batch = NULL;
    asker->ended_with = fastmq_requester_receive(asker->requester, 1, FASTMQ_FOREVER, &batch);
    fastmq_batch_free(batch);
    return NULL;
}

static void close_beside_an_asker(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *responder = subscribe(client, "silent");
    struct asker asker = {open_requester(client, "silent", 0), FASTMQ_TIMEOUT};
    NEED(fastmq_requester_submit(asker.requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    pthread_t thread = start_thread(wait_for_an_answer, &asker);
    fastmq_close(client);
    pthread_join(thread, NULL);
    CHECK(asker.ended_with == FASTMQ_CLOSED || asker.ended_with == FASTMQ_OK,
          "close wakes a waiting asker: CLOSED, or its request's CANCELLED");
    fastmq_requester_close(asker.requester);
    fastmq_unsubscribe(responder);
}

/* What a callback does to its own client, and what came of it. */
struct inside {
    struct gate done, release;
    fastmq_client *client;
    fastmq_status status;
};

static void drain_inside(const fastmq_message *message, void *context)
{
    struct inside *inside = context;
    (void)message;
    inside->status = fastmq_drain(inside->client, 20 * MILLISECOND);
    gate_add(&inside->done, 1);
}

static void drain_inside_a_callback(void)
{
    fastmq_client *client = open_client();
    struct inside inside = {.done = GATE_INIT, .release = GATE_INIT, .client = client};
    fastmq_subscription *subscription = subscribe_call(client, "inside", FASTMQ_DELIVERY_THREAD,
                                                       drain_inside, &inside);
    NEED(publish_number(client, "inside", 1) == FASTMQ_OK);
    CHECK(gate_wait(&inside.done, 1), "drain inside a callback returns");
    CHECK(inside.status == FASTMQ_TIMEOUT || inside.status == FASTMQ_MISUSE
              || inside.status == FASTMQ_OK, "with a status: its own message is still in work");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

static void drain_beside_another(const fastmq_message *message, void *context)
{
    struct inside *inside = context;
    (void)message;
    gate_add(&inside->done, 1);
    gate_wait(&inside->done, 2);
    fastmq_status status = fastmq_drain(inside->client, PATIENCE);
    if (status != FASTMQ_OK) {
        inside->status = status;
    }
}

static void *publish_inline(void *client)
{
    publish_number(client, "inside.b", 1);
    return NULL;
}

/* Two callbacks on two threads, each of which would be what the other's drain waits for. */
static void drain_inside_two_callbacks(void)
{
    fastmq_client *client = open_client();
    struct inside inside = {.done = GATE_INIT, .release = GATE_INIT, .client = client};
    fastmq_subscription *one = subscribe_call(client, "inside.a", FASTMQ_DELIVERY_INLINE,
                                              drain_beside_another, &inside);
    fastmq_subscription *other = subscribe_call(client, "inside.b", FASTMQ_DELIVERY_INLINE,
                                                drain_beside_another, &inside);
    pthread_t thread = start_thread(publish_inline, client);
    NEED(publish_number(client, "inside.a", 1) == FASTMQ_OK);
    pthread_join(thread, NULL);
    CHECK_NUMBER(gate_count(&inside.done), 2, "two callbacks ran at the same time");
    CHECK_STATUS(inside.status, FASTMQ_OK, "both drained without waiting for each other");
    fastmq_unsubscribe(one);
    fastmq_unsubscribe(other);
    fastmq_close(client);
}

static void block_inside(const fastmq_message *message, void *context)
{
    struct inside *inside = context;
    (void)message;
    gate_add(&inside->done, 1);
    gate_wait(&inside->release, 1);
    gate_add(&inside->done, 1);
}

/* Close waits for running callbacks, but not for ever. */
static void close_beside_a_blocked_callback(void)
{
    fastmq_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    static struct inside inside = {.done = GATE_INIT, .release = GATE_INIT};
    options.close_timeout_ns = 20 * MILLISECOND;
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    inside.client = client;
    fastmq_subscription *subscription = subscribe_call(client, "blocked", FASTMQ_DELIVERY_THREAD,
                                                       block_inside, &inside);
    NEED(publish_number(client, "blocked", 1) == FASTMQ_OK && gate_wait(&inside.done, 1));
    fastmq_close(client);
    CHECK_NUMBER(gate_count(&inside.done), 1, "close ends within its time-out beside a callback "
                                              "that blocks");
    gate_add(&inside.release, 1);
    CHECK(gate_wait(&inside.done, 2), "which may still end in peace");
    fastmq_unsubscribe(subscription);
}

static void *close_it(void *client)
{
    fastmq_close(client);
    return NULL;
}

static void close_from_two_threads(void)
{
    for (int i = 0; i < 200; i++) {
        fastmq_client *client = open_client();
        fastmq_subscription *subscription = subscribe(client, "twice");
        pthread_t thread = start_thread(close_it, client);
        fastmq_close(client);
        pthread_join(thread, NULL);
        fastmq_unsubscribe(subscription);
    }
    CHECK(1, "two threads close the same client: one does it, the other is seen");
}

static size_t resident_pages(void)
{
    size_t size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    NEED(file != NULL && fscanf(file, "%zu %zu", &size, &resident) == 2);
    fclose(file);
    return resident;
}

enum { ALL = 100000, AT_ONCE = 1000 };
/* A leak of 64 bytes a subscription would be 6 MiB. */
static const size_t growth_pages_max = (4 << 20) / 4096;

static void open_and_drop(fastmq_client *client, fastmq_queue *queue, uint32_t from, uint32_t count)
{
    static fastmq_subscription *open[ALL];
    char pattern[40];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(pattern, sizeof pattern, i % 10 ? "room.%u.state" : "room.%u.>",
                 (unsigned)(from + i));
        open[i] = subscribe_on(client, pattern, queue, i);
    }
    for (uint32_t i = 0; i < count; i++) {
        fastmq_unsubscribe(open[i]);
    }
}

static void subscriptions_in_a_loop(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    uint64_t memory = client_figures(client).memory;
    uint64_t subscriptions = client_figures(client).subscriptions;
    open_and_drop(client, queue, 0, 10 * AT_ONCE);
    size_t before = resident_pages();
    for (uint32_t i = 0; i < ALL / AT_ONCE; i++) {
        open_and_drop(client, queue, i * AT_ONCE, AT_ONCE);
    }
    size_t after = resident_pages();
    CHECK(after < before + growth_pages_max,
          "100,000 subscriptions opened and dropped in a loop: memory returns");
    CHECK_NUMBER(client_figures(client).subscriptions, subscriptions, "none is left");
    CHECK_NUMBER(client_figures(client).memory, memory, "the statistics are back where they were");

    open_and_drop(client, queue, 0, ALL);
    before = resident_pages();
    open_and_drop(client, queue, ALL, ALL);
    after = resident_pages();
    CHECK(after < before + growth_pages_max,
          "100,000 at the same time, twice: the second time needs no more");
    CHECK_NUMBER(client_figures(client).memory, memory, "and again the statistics are back");
    fastmq_queue_close(queue);

    size_t queues = client_figures(client).queues;
    for (uint32_t i = 0; i < 20000; i++) {
        fastmq_subscription *own = subscribe(client, "own.queue");
        NEED(i % 8 || publish_number(client, "own.queue", i) == FASTMQ_OK);
        fastmq_unsubscribe(own);
        before = i == 2000 ? resident_pages() : before;
    }
    after = resident_pages();
    CHECK(after < before + growth_pages_max, "20,000 queues, some with a message: memory returns");
    CHECK_NUMBER(client_figures(client).queues, queues, "no queue is left");
    fastmq_close(client);
}

static void clients_in_a_loop(void)
{
    size_t before = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        fastmq_client *client = open_client();
        fastmq_subscription *subscription = subscribe(client, "one");
        NEED(publish_number(client, "one", i) == FASTMQ_OK);
        fastmq_unsubscribe(subscription);
        fastmq_close(client);
        before = i == 500 ? resident_pages() : before;
    }
    CHECK(resident_pages() < before + growth_pages_max, "2,000 clients in a loop: memory returns");
}

int main(void)
{
    check_begin();
    drain();
    drain_beside_readers();
    close_beside_readers();
    unsubscribe_beside_a_reader();
    close_beside_an_asker();
    drain_inside_a_callback();
    drain_inside_two_callbacks();
    close_beside_a_blocked_callback();
    close_from_two_threads();
    subscriptions_in_a_loop();
    clients_in_a_loop();
    return check_end();
}
