/* What finding the targets costs, on one thread.
 *
 * routing: one match among many literal subscriptions on one queue. A burst is published and timed,
 * then drained untimed. The subjects of a burst are laid out before it, so that a random subject is
 * a miss in the library's tables and not in the caller's.
 * fan-out: one message to many queues, publishing and draining both inside the figure.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BURST 1024
#define FAN_OUT_BURST 16
#define RECEIVE_MAX 256
#define PAYLOAD_BYTES 16

static uint64_t drain(fastmq_queue *queue) {
    uint64_t total = 0;
    for (;;) {
        fastmq_batch *batch;
        fastmq_status status = fastmq_receive(queue, RECEIVE_MAX, 0, &batch);
        if (status == FASTMQ_AGAIN || status == FASTMQ_TIMEOUT) return total;
        bench_check(status, "fastmq_receive");
        size_t count;
        fastmq_batch_messages(batch, &count);
        total += count;
        fastmq_batch_free(batch);
    }
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Nanoseconds of the burst; all its messages are received before the return. */
static uint64_t burst(fastmq_client *client, fastmq_queue *queue,
                      uint8_t subjects[BURST][BENCH_SUBJECT_BYTES]) {
    uint8_t bytes[PAYLOAD_BYTES] = {1};
    fastmq_bytes payload = bench_bytes(bytes, sizeof bytes);
    uint64_t started = bench_now_ns();
    for (size_t index = 0; index < BURST; index++)
        bench_check(
            fastmq_publish(client, bench_bytes(subjects[index], BENCH_SUBJECT_BYTES), payload),
            "fastmq_publish");
    uint64_t elapsed = bench_now_ns() - started;
    uint64_t received = drain(queue);
    if (received != BURST)
        bench_fail("fastmq-bench: %llu of %d messages arrived", (unsigned long long)received,
                   BURST);
    return elapsed;
}

void bench_routing(const struct bench_plan *plan, const char *param) {
    const char *slash = strchr(param, '/');
    if (slash == NULL) bench_fail("%s is not NAMES/SUBSCRIPTIONS", param);
    size_t kind_size = (size_t)(slash - param);
    bool is_hot = kind_size == 3 && memcmp(param, "hot", 3) == 0;
    bool is_random = kind_size == 6 && memcmp(param, "random", 6) == 0;
    if (!is_hot && !is_random && (kind_size != 10 || memcmp(param, "sequential", 10) != 0))
        bench_fail("%s begins with none of hot, sequential, random", param);
    uint32_t count = (uint32_t)bench_number(slash + 1, NULL);
    bench_pin(1);
    fastmq_client *client = bench_open(FASTMQ_WAIT_BUSY_POLL);
    fastmq_queue *queue = bench_queue(client, FASTMQ_WAIT_BUSY_POLL);
    for (uint32_t index = 0; index < count; index++) {
        uint8_t subject[BENCH_SUBJECT_BYTES];
        bench_subject(subject, index);
        bench_subscribe(client, bench_bytes(subject, sizeof subject), queue, index);
    }
    static uint8_t subjects[BURST][BENCH_SUBJECT_BYTES];
    uint64_t state = UINT64_C(0x9E3779B97F4A7C15), next = 0, timed_ns = 0, bursts = 0;
    uint64_t started = bench_now_ns();
    uint64_t measured_from = started + plan->warm_up_ns;
    for (;;) {
        uint64_t now = bench_now_ns();
        if (now - started > plan->warm_up_ns + plan->measure_ns && bursts > 0) break;
        for (size_t index = 0; index < BURST; index++) {
            uint64_t number = is_hot ? count / 2 : is_random ? next_random(&state) : next++;
            bench_subject(subjects[index], (uint32_t)(number % count));
        }
        uint64_t elapsed = burst(client, queue, subjects);
        if (now < measured_from) continue;
        timed_ns += elapsed;
        bursts++;
    }
    fastmq_close(client);
    bench_print("fastmq", "routing", param, "ns", (double)timed_ns / (double)(bursts * BURST));
}

struct fan_out {
    fastmq_publisher *publisher;
    fastmq_queue **queues;
    uint64_t queue_count;
};

static uint64_t fan_out_step(void *context) {
    struct fan_out *fan_out = context;
    uint8_t bytes[PAYLOAD_BYTES] = {1};
    for (size_t index = 0; index < FAN_OUT_BURST; index++)
        bench_check(fastmq_publisher_publish(fan_out->publisher, bench_bytes(bytes, sizeof bytes)),
                    "fastmq_publisher_publish");
    uint64_t received = 0;
    for (size_t index = 0; index < fan_out->queue_count; index++)
        received += drain(fan_out->queues[index]);
    if (received != FAN_OUT_BURST * fan_out->queue_count)
        bench_fail("fastmq-bench: %llu messages arrived, not %llu", (unsigned long long)received,
                   (unsigned long long)(FAN_OUT_BURST * fan_out->queue_count));
    return received;
}

void bench_fan_out(const struct bench_plan *plan, const char *param) {
    struct fan_out fan_out = {.queue_count = bench_number(param, NULL)};
    bench_pin(1);
    fastmq_client *client = bench_open(FASTMQ_WAIT_BUSY_POLL);
    fan_out.queues = calloc(fan_out.queue_count, sizeof(fastmq_queue *));
    if (fan_out.queues == NULL) bench_fail("no memory for %s queues", param);
    for (uint64_t index = 0; index < fan_out.queue_count; index++) {
        fan_out.queues[index] = bench_queue(client, FASTMQ_WAIT_BUSY_POLL);
        bench_subscribe(client, bench_name(0), fan_out.queues[index], index);
    }
    bench_check(fastmq_publisher_open(client, bench_name(0), &fan_out.publisher),
                "fastmq_publisher_open");
    double rate = bench_rate(plan, fan_out_step, NULL, &fan_out);
    fastmq_publisher_close(fan_out.publisher);
    fastmq_close(client);
    free(fan_out.queues);
    bench_print("fastmq", "fan-out", param, "M deliveries/s", rate);
}
