/* A message written in place (claim, write, commit) against one that is made in the program's own
 * memory and copied (publish). The same bytes are written in both: all of them, as a program does
 * that makes a message, or the two marks only, so that nothing but the library's part is left.
 * On two threads the publisher is on core 1 and the receiver on core 0; on one thread a burst is
 * published, then received.
 */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECEIVE_MAX 256
#define BURST 32
#define SIZE_MAX_BYTES (1 << 20)

struct pair {
    fastmq_queue *queue;
    fastmq_publisher *publisher;
    uint8_t *own; /* memory of the program; NULL: it claims */
    size_t size;
    bool is_whole, is_alone;
    uint64_t sent;
    _Alignas(128) atomic_uint_fast64_t received;
    uint64_t wrong;
    atomic_bool stop;
};

/* Takes what is there and checks it. */
static fastmq_status receive(struct pair *pair, uint64_t timeout_ns) {
    fastmq_batch *batch;
    fastmq_status status = fastmq_receive(pair->queue, RECEIVE_MAX, timeout_ns, &batch);
    if (status != FASTMQ_OK) return status;
    size_t count;
    const fastmq_message *messages = fastmq_batch_messages(batch, &count);
    uint64_t number = atomic_load_explicit(&pair->received, memory_order_relaxed);
    for (size_t index = 0; index < count; index++, number++) {
        const fastmq_bytes payload = messages[index].payload;
        pair->wrong += !bench_is_stamped(payload.data, payload.size, pair->size, number);
    }
    fastmq_batch_free(batch);
    atomic_store_explicit(&pair->received, number, memory_order_release);
    return FASTMQ_OK;
}

static void *receive_all(void *context) {
    struct pair *pair = context;
    bench_pin(0);
    while (!atomic_load_explicit(&pair->stop, memory_order_relaxed)) {
        fastmq_status status = receive(pair, BENCH_POLL_NS);
        if (status != FASTMQ_TIMEOUT && status != FASTMQ_AGAIN) bench_check(status, "receive");
    }
    return NULL;
}

static void make(const struct pair *pair, uint8_t *payload) {
    if (pair->is_whole) memset(payload, (int)pair->sent, pair->size);
    bench_stamp(payload, pair->size, pair->sent);
}

static fastmq_status send_one(struct pair *pair) {
    if (pair->own != NULL) {
        make(pair, pair->own);
        return fastmq_publisher_publish(pair->publisher, bench_bytes(pair->own, pair->size));
    }
    uint8_t *payload;
    fastmq_status status = fastmq_publisher_claim(pair->publisher, pair->size, &payload);
    if (status != FASTMQ_OK) return status;
    make(pair, payload);
    return fastmq_publisher_commit(pair->publisher, pair->size);
}

static uint64_t step(void *context) {
    struct pair *pair = context;
    for (int index = 0; index < BURST; index++) {
        fastmq_status status;
        do status = send_one(pair);
        while (status == FASTMQ_AGAIN);
        bench_check(status, "send_one");
        pair->sent++;
    }
    while (pair->is_alone && atomic_load(&pair->received) < pair->sent)
        bench_check(receive(pair, 0), "receive");
    return BURST;
}

static void settle(void *context) {
    struct pair *pair = context;
    while (atomic_load_explicit(&pair->received, memory_order_acquire) < pair->sent) continue;
}

void bench_claim(const struct bench_plan *plan, const char *param) {
    static struct pair pair;
    bool is_claim = strncmp(param, "claim/", 6) == 0;
    if (!is_claim && strncmp(param, "copy/", 5) != 0)
        bench_fail("%s begins with neither claim/ nor copy/", param);
    const char *rest;
    pair.size = bench_number(param + (is_claim ? 6 : 5), &rest);
    if (pair.size < 16 || pair.size > SIZE_MAX_BYTES)
        bench_fail("%zu bytes; from 16 to %d", pair.size, SIZE_MAX_BYTES);
    pair.is_whole = strncmp(rest, "/whole", 6) == 0;
    if (!pair.is_whole && strncmp(rest, "/marks", 6) != 0)
        bench_fail("%s goes on with neither /whole nor /marks", param);
    pair.is_alone = strcmp(rest + 6, "/one-thread") == 0;
    if (!pair.is_alone && strcmp(rest + 6, "/two-threads") != 0)
        bench_fail("%s ends with neither /one-thread nor /two-threads", param);
    fastmq_client *client = bench_open(FASTMQ_WAIT_BUSY_POLL);
    pair.queue = bench_queue(client, FASTMQ_WAIT_BUSY_POLL);
    bench_subscribe(client, bench_name(0), pair.queue, 0);
    bench_check(fastmq_publisher_open(client, bench_name(0), &pair.publisher),
                "fastmq_publisher_open");
    if (!is_claim && (pair.own = calloc(1, pair.size)) == NULL) bench_fail("no memory");
    pthread_t thread;
    if (!pair.is_alone && pthread_create(&thread, NULL, receive_all, &pair) != 0)
        bench_fail("no second thread");
    bench_pin(1);
    double rate = bench_rate(plan, step, settle, &pair);
    atomic_store(&pair.stop, true);
    if (!pair.is_alone) pthread_join(thread, NULL);
    fastmq_publisher_close(pair.publisher);
    fastmq_close(client);
    free(pair.own);
    if (pair.wrong != 0)
        bench_fail("fastmq-bench: %llu messages are wrong", (unsigned long long)pair.wrong);
    bench_print("fastmq", "claim", param, "M msg/s", rate);
}
