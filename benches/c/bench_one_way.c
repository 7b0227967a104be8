/* Messages in one direction: publishers on core 1 (on all cores but 0 where there are more than
 * two), one receiver on core 0. Every message carries its number in its first and last word and is
 * checked; a full queue answers AGAIN and the publisher tries again.
 */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECEIVE_MAX 256
#define BATCH 64
#define STEP_BYTES (64 * 1024)
#define PUBLISHERS_MAX 64

enum how { BY_NAME, BY_HANDLE, BY_HANDLE_IN_BATCHES };

struct publisher {
    const struct bench_plan *plan;
    struct receiver *receiver;
    fastmq_client *client;
    fastmq_publisher *handle;
    uint8_t *payloads; /* BATCH of them, or one */
    size_t payload_size, step_count;
    uint64_t sent;
    double rate;
    enum how how;
    uint32_t index;
};

struct receiver {
    fastmq_queue *queue;
    size_t payload_size;
    bool has_sequence;
    atomic_bool stop;
    uint64_t wrong;
    /* By tag: how many were received. Each on its own line: publishers read theirs. */
    struct {
        _Alignas(128) atomic_uint_fast64_t count;
    } received[PUBLISHERS_MAX];
};

static void *receive(void *context) {
    struct receiver *receiver = context;
    uint64_t expected[PUBLISHERS_MAX] = {0};
    uint64_t wrong = 0;
    bench_pin(0);
    while (!atomic_load_explicit(&receiver->stop, memory_order_relaxed)) {
        fastmq_batch *batch;
        fastmq_status status = fastmq_receive(receiver->queue, RECEIVE_MAX, BENCH_POLL_NS, &batch);
        if (status == FASTMQ_TIMEOUT || status == FASTMQ_AGAIN) continue;
        bench_check(status, "fastmq_receive");
        size_t count;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        uint64_t source = 0;
        for (size_t index = 0; index < count; index++) {
            const fastmq_message *message = &messages[index];
            if (message->tag >= PUBLISHERS_MAX) bench_fail("fastmq-bench: a tag is wrong");
            source = message->tag;
            uint64_t number = expected[source]++;
            bool is_right = bench_is_stamped(message->payload.data, message->payload.size,
                                             receiver->payload_size, number) &&
                            (!receiver->has_sequence || message->sequence == number + 1);
            wrong += !is_right;
            /* A batch may hold messages of several publishers: each is told of its last one. */
            if (index + 1 == count || messages[index + 1].tag != source)
                atomic_store_explicit(&receiver->received[source].count, expected[source],
                                      memory_order_release);
        }
        fastmq_batch_free(batch);
    }
    receiver->wrong = wrong;
    return NULL;
}

static void publish_one(struct publisher *publisher) {
    uint64_t number = publisher->sent;
    bench_stamp(publisher->payloads, publisher->payload_size, number);
    fastmq_bytes payload = bench_bytes(publisher->payloads, publisher->payload_size);
    fastmq_status status;
    do {
        if (publisher->how == BY_NAME)
            status = fastmq_publish(publisher->client, bench_name((uint32_t)number), payload);
        else
            status = fastmq_publisher_publish(publisher->handle, payload);
    } while (status == FASTMQ_AGAIN);
    bench_check(status, "publish");
    publisher->sent++;
}

static void publish_batch(struct publisher *publisher) {
    fastmq_bytes payloads[BATCH];
    for (size_t index = 0; index < BATCH; index++) {
        uint8_t *bytes = publisher->payloads + index * publisher->payload_size;
        bench_stamp(bytes, publisher->payload_size, publisher->sent + index);
        payloads[index] = bench_bytes(bytes, publisher->payload_size);
    }
    size_t done = 0;
    while (done < BATCH) {
        size_t accepted;
        fastmq_status status = fastmq_publisher_publish_batch(publisher->handle, payloads + done,
                                                              BATCH - done, &accepted);
        if (status != FASTMQ_AGAIN) bench_check(status, "fastmq_publisher_publish_batch");
        done += accepted;
    }
    publisher->sent += BATCH;
}

static uint64_t step(void *context) {
    struct publisher *publisher = context;
    uint64_t before = publisher->sent;
    while (publisher->sent - before < publisher->step_count) {
        if (publisher->how == BY_HANDLE_IN_BATCHES)
            publish_batch(publisher);
        else
            publish_one(publisher);
    }
    return publisher->sent - before;
}

static void settle(void *context) {
    struct publisher *publisher = context;
    atomic_uint_fast64_t *count = &publisher->receiver->received[publisher->index].count;
    while (atomic_load_explicit(count, memory_order_acquire) < publisher->sent) continue;
}

static void *publish(void *context) {
    struct publisher *publisher = context;
    bench_pin(bench_publisher_core(publisher->index));
    publisher->rate = bench_rate(publisher->plan, step, settle, publisher);
    return NULL;
}

static double run(const struct bench_plan *plan, enum how how, size_t payload_size,
                  uint32_t publisher_count) {
    static struct receiver receiver;
    static struct publisher publishers[PUBLISHERS_MAX];
    fastmq_client *client = bench_open(FASTMQ_WAIT_BUSY_POLL);
    receiver.queue = bench_queue(client, FASTMQ_WAIT_BUSY_POLL);
    receiver.payload_size = payload_size;
    receiver.has_sequence = how != BY_NAME;
    uint32_t subject_count = how == BY_NAME ? BENCH_SUBJECTS : publisher_count;
    for (uint32_t index = 0; index < subject_count; index++)
        bench_subscribe(client, bench_name(index), receiver.queue, how == BY_NAME ? 0 : index);
    size_t step_count = STEP_BYTES / payload_size;
    if (step_count > 1024) step_count = 1024;
    if (step_count < 1) step_count = 1;
    pthread_t receiver_thread, threads[PUBLISHERS_MAX];
    if (pthread_create(&receiver_thread, NULL, receive, &receiver) != 0)
        bench_fail("no second thread");
    for (uint32_t index = 0; index < publisher_count; index++) {
        struct publisher *publisher = &publishers[index];
        *publisher = (struct publisher){.plan = plan,
                                        .receiver = &receiver,
                                        .client = client,
                                        .payload_size = payload_size,
                                        .step_count = step_count,
                                        .how = how,
                                        .index = index};
        publisher->payloads = calloc(how == BY_HANDLE_IN_BATCHES ? BATCH : 1, payload_size);
        if (publisher->payloads == NULL) bench_fail("no memory for the payloads");
        if (how != BY_NAME)
            bench_check(fastmq_publisher_open(client, bench_name(index), &publisher->handle),
                        "fastmq_publisher_open");
        if (pthread_create(&threads[index], NULL, publish, publisher) != 0)
            bench_fail("no thread for publisher %u", index);
    }
    double rate = 0;
    for (uint32_t index = 0; index < publisher_count; index++) {
        pthread_join(threads[index], NULL);
        rate += publishers[index].rate;
        fastmq_publisher_close(publishers[index].handle);
        free(publishers[index].payloads);
    }
    atomic_store(&receiver.stop, true);
    pthread_join(receiver_thread, NULL);
    fastmq_close(client);
    if (receiver.wrong != 0)
        bench_fail("fastmq-bench: %llu messages are wrong", (unsigned long long)receiver.wrong);
    return rate;
}

void bench_one_way(const struct bench_plan *plan, const char *param) {
    bool is_by_name = strncmp(param, "string/", 7) == 0;
    if (!is_by_name && strncmp(param, "handle/", 7) != 0)
        bench_fail("%s begins with neither string/ nor handle/", param);
    const char *rest;
    size_t payload_size = bench_number(param + 7, &rest);
    if (payload_size < 16)
        bench_fail("%zu bytes have no room for two marks; at least 16", payload_size);
    bool is_batch = strcmp(rest, "/batch") == 0;
    if (!is_batch && strcmp(rest, "/call") != 0)
        bench_fail("%s ends with neither /call nor /batch", param);
    if (is_batch && is_by_name) bench_fail("%s: batches are published by handle", param);
    enum how how = is_by_name ? BY_NAME : is_batch ? BY_HANDLE_IN_BATCHES : BY_HANDLE;
    bench_print("fastmq", "one-way", param, "M msg/s", run(plan, how, payload_size, 1));
}

void bench_publishers(const struct bench_plan *plan, const char *param) {
    uint64_t count = bench_number(param, NULL);
    if (count > PUBLISHERS_MAX) bench_fail("%s publishers are more than %d", param, PUBLISHERS_MAX);
    bench_print("fastmq", "publishers", param, "M msg/s",
                run(plan, BY_HANDLE, 16, (uint32_t)count));
}
