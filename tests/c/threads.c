/* Many threads: order per writer, nothing lost or doubled under backpressure, drops equal to the
 * counts, and writers that come and go.
 *
 * Decided here: for messages by subject the writer is the calling thread, so each thread's messages
 * keep their order at each reader, also while they move from a shared lane to one of their own.
 */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

enum { PUBLISHERS = 4, SUBSCRIBERS = 4 };
static const uint32_t MARK = UINT32_MAX; /* the number of a message that is not counted */

/* The payload: which writer, its how-manieth message. */
struct load {
    uint32_t number, writer;
};

struct writer {
    fastmq_client *client;
    uint32_t index, count;
    int by_handle, is_waiting;
    fastmq_status status;
};

/* Publishes its numbers in order; waits for room if told to. Ends at the first failure. */
static void *write_load(void *context)
{
    struct writer *own = context;
    fastmq_publisher *publisher = NULL;
    char subject[32];
    snprintf(subject, sizeof subject, "load.%u", (unsigned)own->index);
    if (own->by_handle) {
        own->status = fastmq_publisher_open(own->client, text(subject), &publisher);
    }
    for (uint32_t i = 0; i < own->count && own->status == FASTMQ_OK; i++) {
        struct load load = {i, own->index};
        fastmq_bytes payload = bytes(&load, sizeof load);
        own->status = own->by_handle ? fastmq_publisher_publish(publisher, payload)
                                     : fastmq_publish(own->client, text(subject), payload);
        if (own->status == FASTMQ_AGAIN && own->is_waiting) {
            fastmq_outgoing message = outgoing(subject, payload);
            own->status = own->by_handle
                ? fastmq_publisher_publish_wait(publisher, payload, PATIENCE)
                : fastmq_publish_wait(own->client, &message, PATIENCE);
        }
    }
    fastmq_publisher_close(publisher);
    return NULL;
}

struct reader {
    fastmq_queue *queue;
    uint32_t writers, next[256]; /* next: the lowest number that may come from each writer */
    uint64_t received, lost, skipped, disorder;
    fastmq_status ended_with;
};

static void read_message(struct reader *own, const fastmq_message *message)
{
    struct load load = {0, UINT32_MAX};
    if (message->payload.size == sizeof load) {
        memcpy(&load, message->payload.data, sizeof load);
    }
    own->lost += message->lost_before;
    if (load.number == MARK) {
        return; /* only there to carry the last counts */
    }
    own->received++;
    if (load.writer >= own->writers || load.number < own->next[load.writer]) {
        own->disorder++;
        return;
    }
    own->skipped += load.number - own->next[load.writer];
    own->next[load.writer] = load.number + 1;
}

static void *read_load(void *context)
{
    struct reader *own = context;
    fastmq_batch *batch = NULL;
    while ((own->ended_with = fastmq_receive(own->queue, 256, FASTMQ_FOREVER, &batch))
           == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            read_message(own, &m[i]);
        }
        fastmq_batch_free(batch);
    }
    return NULL;
}

struct run {
    fastmq_client *client;
    fastmq_queue *queues[SUBSCRIBERS];
    fastmq_subscription *subscriptions[SUBSCRIBERS];
    struct reader readers[SUBSCRIBERS];
    pthread_t threads[SUBSCRIBERS];
};

static void start_readers(struct run *run, fastmq_policy policy, uint64_t capacity)
{
    memset(run, 0, sizeof *run);
    run->client = open_client();
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        run->queues[i] = open_queue(run->client, policy, capacity);
        run->subscriptions[i] = subscribe_on(run->client, "load.*", run->queues[i], i);
        run->readers[i].queue = run->queues[i];
        run->readers[i].writers = PUBLISHERS;
        run->threads[i] = start_thread(read_load, &run->readers[i]);
    }
}

/* Runs the four writers, two of them by handle; returns how many failed. */
static uint32_t write_all(struct run *run, uint32_t count, int is_waiting)
{
    struct writer writers[PUBLISHERS];
    pthread_t threads[PUBLISHERS];
    uint32_t failed = 0;
    for (uint32_t i = 0; i < PUBLISHERS; i++) {
        writers[i] = (struct writer){run->client, i, count, i % 2 == 0, is_waiting, FASTMQ_OK};
        threads[i] = start_thread(write_load, &writers[i]);
    }
    for (uint32_t i = 0; i < PUBLISHERS; i++) {
        pthread_join(threads[i], NULL);
        failed += writers[i].status != FASTMQ_OK;
    }
    return failed;
}

/* Lets the readers finish and ends them. */
static void end_readers(struct run *run)
{
    NEED(fastmq_drain(run->client, PATIENCE) == FASTMQ_OK);
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        pthread_join(run->threads[i], NULL);
    }
}

static void close_run(struct run *run)
{
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        fastmq_unsubscribe(run->subscriptions[i]);
        fastmq_queue_close(run->queues[i]);
    }
    fastmq_close(run->client);
}

static void backpressure(uint32_t count, uint64_t capacity, const char *name)
{
    static struct run run;
    char line[120];
    uint64_t received = 0, wrong = 0, dropped = 0;
    start_readers(&run, FASTMQ_POLICY_BACKPRESSURE, capacity);
    uint32_t failed = write_all(&run, count, 1);
    end_readers(&run);
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        received += run.readers[i].received;
        wrong += run.readers[i].skipped + run.readers[i].disorder + run.readers[i].lost;
        dropped += queue_figures(run.queues[i]).dropped;
    }
    snprintf(line, sizeof line, "%s: every writer gets all its messages through", name);
    CHECK_NUMBER(failed, 0, line);
    snprintf(line, sizeof line, "%s: each reader receives each message once", name);
    CHECK_NUMBER(received, (uint64_t)count * PUBLISHERS * SUBSCRIBERS, line);
    snprintf(line, sizeof line, "%s: in order per writer, no gap, none lost", name);
    CHECK_NUMBER(wrong + dropped, 0, line);
    snprintf(line, sizeof line, "%s: the statistics count the publishes", name);
    CHECK_NUMBER(client_figures(run.client).published, (uint64_t)count * PUBLISHERS, line);
    snprintf(line, sizeof line, "%s: and the deliveries", name);
    CHECK_NUMBER(client_figures(run.client).delivered, received, line);
    close_run(&run);
}

static void dropping(fastmq_policy policy, const char *name)
{
    enum { COUNT = 50000 };
    static struct run run;
    char line[120];
    uint64_t wrong = 0, unequal = 0, uncounted = 0;
    start_readers(&run, policy, SMALL_CAPACITY);
    uint32_t failed = write_all(&run, COUNT, 0);
    end_readers(&run);
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        const struct reader *reader = &run.readers[i];
        uint64_t sent = (uint64_t)COUNT * PUBLISHERS;
        uint64_t dropped = queue_figures(run.queues[i]).dropped;
        wrong += reader->disorder;
        unequal += reader->received + dropped != sent;
        /* What was lost after the last message received has no message to tell it. */
        uncounted += reader->lost > dropped || reader->skipped > dropped;
    }
    snprintf(line, sizeof line, "%s: no publish fails", name);
    CHECK_NUMBER(failed, 0, line);
    snprintf(line, sizeof line, "%s: order per writer is kept", name);
    CHECK_NUMBER(wrong, 0, line);
    snprintf(line, sizeof line, "%s: received and dropped are all that was sent", name);
    CHECK_NUMBER(unequal, 0, line);
    snprintf(line, sizeof line, "%s: no reader is told of more than was dropped", name);
    CHECK_NUMBER(uncounted, 0, line);
    close_run(&run);
}

/* Loss reports of several writers sum up: each writer sends one mark when there is room again. */
static void every_drop_is_reported(fastmq_policy policy, const char *name)
{
    enum { COUNT = 5000 };
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, policy, SMALL_CAPACITY);
    fastmq_subscription *subscription = subscribe_on(client, "load.*", queue, 0);
    fastmq_publisher *publishers[PUBLISHERS];
    static struct reader reader;
    memset(&reader, 0, sizeof reader);
    reader.writers = PUBLISHERS;
    char subject[32];
    for (uint32_t i = 0; i < PUBLISHERS; i++) {
        snprintf(subject, sizeof subject, "load.%u", (unsigned)i);
        publishers[i] = open_publisher(client, subject);
    }
    for (uint32_t i = 0; i <= COUNT; i++) {
        for (uint32_t j = 0; j < PUBLISHERS; j++) {
            struct load load = {i < COUNT ? i : MARK, j};
            if (i == COUNT || i % 1000 == 0) { /* a reader that comes by now and then */
                fastmq_batch *batch = NULL;
                while (fastmq_receive(queue, 64, 0, &batch) == FASTMQ_OK) {
                    size_t count = 0;
                    const fastmq_message *m = fastmq_batch_messages(batch, &count);
                    for (size_t k = 0; k < count; k++) {
                        read_message(&reader, &m[k]);
                    }
                    fastmq_batch_free(batch);
                }
            }
            NEED(fastmq_publisher_publish(publishers[j], bytes(&load, sizeof load)) == FASTMQ_OK);
        }
    }
    const fastmq_message *m = NULL;
    size_t count = 0;
    for (uint64_t left = queue_figures(queue).pending; left > 0; left -= count) {
        fastmq_batch *batch = take(queue, 64, &m, &count);
        for (size_t k = 0; k < count; k++) {
            read_message(&reader, &m[k]);
        }
        fastmq_batch_free(batch);
    }
    char line[120];
    snprintf(line, sizeof line, "%s: received and lost_before of all writers sum up", name);
    CHECK_NUMBER(reader.received + reader.lost, (uint64_t)COUNT * PUBLISHERS, line);
    snprintf(line, sizeof line, "%s: and are the queue's count", name);
    CHECK_NUMBER(reader.lost, queue_figures(queue).dropped, line);
    for (uint32_t i = 0; i < PUBLISHERS; i++) {
        fastmq_publisher_close(publishers[i]);
    }
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

/* More threads than a queue has lanes: each publishes by subject and ends without a word. */
static void writers_that_end(void)
{
    enum { WRITERS = 200, COUNT = 50 };
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "load.*");
    static struct reader reader;
    memset(&reader, 0, sizeof reader);
    reader.queue = fastmq_subscription_queue(subscription);
    reader.writers = WRITERS;
    pthread_t reading = start_thread(read_load, &reader);
    uint32_t failed = 0;
    uint64_t memory = 0;
    for (uint32_t i = 0; i < WRITERS; i++) {
        struct writer writer = {client, i, COUNT, i % 4 == 0, 1, FASTMQ_OK};
        pthread_join(start_thread(write_load, &writer), NULL);
        failed += writer.status != FASTMQ_OK;
        memory = i == WRITERS / 2 ? client_figures(client).memory : memory;
    }
    CHECK_NUMBER(failed, 0, "200 writers, one after another, publish and end");
    CHECK(client_figures(client).memory <= memory + (1 << 20),
          "a writer that has ended leaves no lane behind");
    NEED(fastmq_drain(client, PATIENCE) == FASTMQ_OK);
    pthread_join(reading, NULL);
    CHECK_NUMBER(reader.received, (uint64_t)WRITERS * COUNT, "all their messages arrive");
    CHECK_NUMBER(reader.disorder + reader.skipped + reader.lost, 0, "in order, none lost");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

struct freer {
    _Atomic(fastmq_batch *) batch;
    atomic_int is_over;
    uint32_t unread;
};

static void *free_batches(void *context)
{
    struct freer *own = context;
    while (!atomic_load(&own->is_over)) {
        fastmq_batch *batch = atomic_exchange(&own->batch, NULL);
        if (batch == NULL) {
            sched_yield();
            continue;
        }
        size_t count = 0;
        own->unread += fastmq_batch_messages(batch, &count) == NULL || count != 1;
        fastmq_batch_free(batch);
    }
    return NULL;
}

/* One thread receives, another frees: a receive that meets an open batch is MISUSE, and the next
 * one after the batch was freed goes on. */
static void freeing_beside_a_receive(void)
{
    enum { COUNT = 20000, LOOKS_MAX = 2000000000 };
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "free");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    static struct freer freer;
    pthread_t thread = start_thread(free_batches, &freer);
    uint32_t other = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        NEED(publish_number(client, "free", i) == FASTMQ_OK);
        fastmq_batch *batch = NULL;
        fastmq_status status = FASTMQ_MISUSE;
        for (uint32_t looks = 0; status == FASTMQ_MISUSE && looks < LOOKS_MAX; looks++) {
            status = fastmq_receive(queue, 1, 0, &batch);
        }
        if (status != FASTMQ_OK) {
            other++;
            break;
        }
        while (atomic_load(&freer.batch) != NULL) {
            sched_yield();
        }
        atomic_store(&freer.batch, batch);
    }
    while (atomic_load(&freer.batch) != NULL) {
        sched_yield();
    }
    atomic_store(&freer.is_over, 1);
    pthread_join(thread, NULL);
    CHECK_NUMBER(other, 0, "a batch freed beside a receive: the queue goes on");
    CHECK_NUMBER(freer.unread, 0, "and each batch was its receiver's");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    backpressure(100000, 0, "4 writers, 4 readers");
    backpressure(10000, SMALL_CAPACITY, "the same through the smallest queues");
    dropping(FASTMQ_POLICY_DROP_OLDEST, "drop_oldest");
    dropping(FASTMQ_POLICY_DROP_NEWEST, "drop_newest");
    every_drop_is_reported(FASTMQ_POLICY_DROP_OLDEST, "drop_oldest");
    every_drop_is_reported(FASTMQ_POLICY_DROP_NEWEST, "drop_newest");
    writers_that_end();
    freeing_beside_a_receive();
    return check_end();
}
