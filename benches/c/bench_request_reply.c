/* Requests and their answers between two threads: the asker on core 1 keeps a number of requests
 * outstanding, takes up to 64 answers, checks each and sends as many new requests; the responder
 * on core 0 answers with the payload of the request. The same pattern as the floor.
 */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define BURST 64
#define PAIRS_PER_STEP 1024
#define PAYLOAD_BYTES 16

struct asker {
    fastmq_requester *requester;
    uint64_t outstanding, sent, answered, wrong;
    bool is_by_name;
};

struct responder {
    fastmq_client *client;
    fastmq_queue *queue;
    atomic_bool stop;
};

static void *respond(void *context) {
    struct responder *responder = context;
    bench_pin(0);
    while (!atomic_load_explicit(&responder->stop, memory_order_relaxed)) {
        fastmq_batch *batch;
        fastmq_status status = fastmq_receive(responder->queue, BURST, BENCH_POLL_NS, &batch);
        if (status == FASTMQ_TIMEOUT || status == FASTMQ_AGAIN) continue;
        bench_check(status, "fastmq_receive");
        size_t count;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t index = 0; index < count; index++)
            bench_check(fastmq_reply(responder->client, messages[index].token,
                                     messages[index].payload),
                        "fastmq_reply");
        fastmq_batch_free(batch);
    }
    return NULL;
}

static inline void submit(struct asker *asker) {
    uint8_t bytes[PAYLOAD_BYTES];
    uint64_t number = asker->sent;
    bench_stamp(bytes, sizeof bytes, number);
    fastmq_bytes payload = bench_bytes(bytes, sizeof bytes);
    if (asker->is_by_name)
        bench_check(fastmq_requester_submit_to(asker->requester, bench_name((uint32_t)number),
                                               payload, number, BENCH_TIMEOUT_NS),
                    "fastmq_requester_submit_to");
    else
        bench_check(fastmq_requester_submit(asker->requester, payload, number, BENCH_TIMEOUT_NS),
                    "fastmq_requester_submit");
    asker->sent++;
}

static inline void collect(struct asker *asker) {
    fastmq_batch *batch;
    fastmq_status status =
        fastmq_requester_receive(asker->requester, BURST, BENCH_TIMEOUT_NS, &batch);
    bench_check(status, "fastmq_requester_receive");
    size_t count;
    const fastmq_message *answers = fastmq_batch_messages(batch, &count);
    for (size_t index = 0; index < count; index++) {
        const fastmq_message *answer = &answers[index];
        bool is_right = answer->status == FASTMQ_OK && answer->token == asker->answered &&
                        bench_is_stamped(answer->payload.data, answer->payload.size, PAYLOAD_BYTES,
                                         asker->answered);
        asker->wrong += !is_right;
        asker->answered++;
    }
    fastmq_batch_free(batch);
}

static uint64_t step(void *context) {
    struct asker *asker = context;
    uint64_t before = asker->answered;
    while (asker->answered - before < PAIRS_PER_STEP) {
        while (asker->sent - asker->answered < asker->outstanding) submit(asker);
        collect(asker);
    }
    return asker->answered - before;
}

static void settle(void *context) {
    struct asker *asker = context;
    while (asker->answered < asker->sent) collect(asker);
}

static void one_round_trip(void *context) {
    submit(context);
    collect(context);
}

/* Opens both sides, lets `measure` use the asker, closes them. */
static void with_asker(fastmq_wait wait, bool is_by_name, uint32_t outstanding,
                       void (*measure)(struct asker *asker, void *context), void *context) {
    fastmq_client *client = bench_open(wait);
    struct responder responder = {.client = client, .queue = bench_queue(client, wait)};
    for (uint32_t index = 0; index < BENCH_SUBJECTS; index++)
        bench_subscribe(client, bench_name(index), responder.queue, index);
    fastmq_requester_options options = {
        .struct_size = sizeof options, .in_flight_max = outstanding, .wait = wait};
    if (!is_by_name) options.subject = bench_name(7);
    struct asker asker = {.outstanding = outstanding, .is_by_name = is_by_name};
    bench_check(fastmq_requester_open(client, &options, &asker.requester),
                "fastmq_requester_open");
    pthread_t thread;
    if (pthread_create(&thread, NULL, respond, &responder) != 0) bench_fail("no second thread");
    bench_pin(1);
    measure(&asker, context);
    atomic_store(&responder.stop, true);
    pthread_join(thread, NULL);
    fastmq_requester_close(asker.requester);
    fastmq_close(client);
    if (asker.wrong != 0)
        bench_fail("fastmq-bench: %llu answers are wrong", (unsigned long long)asker.wrong);
}

struct measured {
    const struct bench_plan *plan;
    double rate;
    struct bench_percentiles latency;
};

static void measure_rate(struct asker *asker, void *context) {
    struct measured *measured = context;
    measured->rate = bench_rate(measured->plan, step, settle, asker);
}

static void measure_latency(struct asker *asker, void *context) {
    struct measured *measured = context;
    measured->latency = bench_latency(measured->plan, one_round_trip, asker);
}

void bench_request_reply(const struct bench_plan *plan, const char *param) {
    bool is_by_name = strncmp(param, "string/", 7) == 0;
    if (!is_by_name && strncmp(param, "handle/", 7) != 0)
        bench_fail("%s is neither string/N nor handle/N", param);
    uint32_t outstanding = (uint32_t)bench_number(param + 7, NULL);
    struct measured measured = {.plan = plan};
    with_asker(FASTMQ_WAIT_BUSY_POLL, is_by_name, outstanding, measure_rate, &measured);
    bench_print("fastmq", "request-reply", param, "M pairs/s", measured.rate);
}

void bench_round_trip(const struct bench_plan *plan, const char *param) {
    fastmq_wait wait;
    if (strcmp(param, "busy-poll") == 0)
        wait = FASTMQ_WAIT_BUSY_POLL;
    else if (strcmp(param, "adaptive") == 0)
        wait = FASTMQ_WAIT_BALANCED;
    else if (strcmp(param, "parked") == 0)
        wait = FASTMQ_WAIT_LOW_POWER;
    else
        bench_fail("%s is none of busy-poll, adaptive, parked", param);
    struct measured measured = {.plan = plan};
    with_asker(wait, true, 1, measure_latency, &measured);
    bench_print_latency("fastmq", "round-trip", param, measured.latency);
}
