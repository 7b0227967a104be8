/* Measures FAST MQ through the C ABI: one case, one line of
 * `program,case,param,unit,value[,p50,p99,p999]`. The same cases as benches/floor, and those that
 * have no floor. Not here: repetition and comparison (benches/run.py).
 */
#include "bench.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: fastmq-bench [--ms N] [--warm-up-ms N] CASE PARAM\n"
    "  request-reply (string|handle)/OUTSTANDING\n"
    "  round-trip (busy-poll|adaptive|parked)\n"
    "  one-way (string/BYTES/call|handle/BYTES/call|handle/BYTES/batch)\n"
    "  claim (copy|claim)/BYTES/(whole|marks)/(one-thread|two-threads)\n"
    "  group (balanced|key-shared)/MEMBERS/(keys|subjects)\n"
    "  publishers COUNT\n"
    "  fan-out QUEUES\n"
    "  routing (hot|sequential|random)/SUBSCRIPTIONS\n"
    "  inline (string|handle)\n"
    "  latest (string|handle)/(wall|thread)\n"
    "  memory (open|subscription|queue)\n"
    "  idle (queue|thread)/(wake-ups|bytes)\n"
    "  start first-delivery";

static const struct {
    const char *name;
    void (*run)(const struct bench_plan *plan, const char *param);
} cases[] = {
    {"request-reply", bench_request_reply}, {"round-trip", bench_round_trip},
    {"one-way", bench_one_way},             {"claim", bench_claim},
    {"group", bench_group},                 {"publishers", bench_publishers},
    {"fan-out", bench_fan_out},             {"routing", bench_routing},
    {"inline", bench_inline},               {"memory", bench_memory},
    {"idle", bench_idle},                   {"start", bench_start},
    {"latest", bench_latest},
};

int main(int argc, char **argv) {
    struct bench_plan plan;
    int first = bench_plan_read(argc, argv, &plan);
    if (argc - first != 2) bench_fail("%s", usage);
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        if (strcmp(cases[index].name, argv[first]) != 0) continue;
        cases[index].run(&plan, argv[first + 1]);
        return 0;
    }
    bench_fail("%s is not a case\n%s", argv[first], usage);
}

void bench_check(fastmq_status status, const char *call) {
    if (status == FASTMQ_OK) return;
    bench_fail("fastmq-bench: %s: %s: %s", call, fastmq_status_name(status), fastmq_last_error());
}

fastmq_bytes bench_bytes(const void *data, size_t size) {
    return (fastmq_bytes){.data = data, .size = size};
}

fastmq_bytes bench_name(uint32_t index) {
    static uint8_t names[BENCH_SUBJECTS][BENCH_SUBJECT_BYTES];
    if (names[0][0] == 0) /* Called by the main thread before any other is started. */
        for (uint32_t at = 0; at < BENCH_SUBJECTS; at++) bench_subject(names[at], at);
    return bench_bytes(names[index % BENCH_SUBJECTS], BENCH_SUBJECT_BYTES);
}

fastmq_client *bench_open(fastmq_wait wait) {
    fastmq_options options = {.struct_size = sizeof options, .wait = wait};
    fastmq_client *client;
    bench_check(fastmq_open(&options, &client), "fastmq_open");
    return client;
}

fastmq_queue *bench_queue(fastmq_client *client, fastmq_wait wait) {
    fastmq_queue_options options = {.struct_size = sizeof options, .wait = wait};
    fastmq_queue *queue;
    bench_check(fastmq_queue_open(client, &options, &queue), "fastmq_queue_open");
    return queue;
}

fastmq_subscription *bench_subscribe(fastmq_client *client, fastmq_bytes pattern,
                                     fastmq_queue *queue, uint64_t tag) {
    fastmq_subscribe_options options = {.struct_size = sizeof options,
                                        .delivery = FASTMQ_DELIVERY_QUEUE,
                                        .queue = queue,
                                        .tag = tag};
    fastmq_subscription *subscription;
    bench_check(fastmq_subscribe(client, pattern, &options, &subscription), "fastmq_subscribe");
    return subscription;
}
