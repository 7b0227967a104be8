/* What being there costs: resident bytes of an open broker, of a subscription, of an idle queue,
 * and the time from open to the first delivery. Resident bytes come from smaps_rollup, which walks
 * the page tables; the counters in statm lag behind by tens of pages.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUBSCRIPTIONS 100000
#define QUEUES 10000

uint64_t bench_resident_bytes(void) {
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    if (file == NULL) bench_fail("/proc/self/smaps_rollup cannot be read");
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Rss: %llu kB", &kib) == 1) break;
    fclose(file);
    if (kib == 0) bench_fail("/proc/self/smaps_rollup has no Rss");
    return kib * 1024;
}

/* Per thing: bytes added from `before` until now; 0 when memory shrank. */
static double added(uint64_t before, uint64_t count) {
    uint64_t after = bench_resident_bytes();
    return after > before ? (double)(after - before) / (double)count : 0;
}

void bench_memory(const struct bench_plan *plan, const char *param) {
    (void)plan;
    bench_resident_bytes(); /* The first call brings in stdio's own pages. */
    uint64_t before = bench_resident_bytes();
    fastmq_client *client = bench_open(FASTMQ_WAIT_BALANCED);
    double bytes = 0;
    if (strcmp(param, "open") == 0) {
        bytes = added(before, 1);
    } else if (strcmp(param, "subscription") == 0) {
        fastmq_queue *queue = bench_queue(client, FASTMQ_WAIT_BALANCED);
        before = bench_resident_bytes();
        for (uint32_t index = 0; index < SUBSCRIPTIONS; index++) {
            uint8_t subject[BENCH_SUBJECT_BYTES];
            bench_subject(subject, index);
            bench_subscribe(client, bench_bytes(subject, sizeof subject), queue, index);
        }
        bytes = added(before, SUBSCRIPTIONS);
    } else if (strcmp(param, "queue") == 0) {
        before = bench_resident_bytes();
        for (uint32_t index = 0; index < QUEUES; index++) bench_queue(client, FASTMQ_WAIT_BALANCED);
        bytes = added(before, QUEUES);
    } else {
        bench_fail("%s is none of open, subscription, queue", param);
    }
    fastmq_close(client);
    bench_print("fastmq", "memory", param, "bytes", bytes);
}

void bench_start(const struct bench_plan *plan, const char *param) {
    (void)plan;
    if (strcmp(param, "first-delivery") != 0) bench_fail("%s is not first-delivery", param);
    uint64_t started = bench_now_ns();
    fastmq_client *client;
    bench_check(fastmq_open(NULL, &client), "fastmq_open");
    fastmq_subscription *subscription;
    bench_check(fastmq_subscribe(client, bench_name(0), NULL, &subscription), "fastmq_subscribe");
    bench_check(fastmq_publish(client, bench_name(0), bench_bytes("0123456789abcdef", 16)),
                "fastmq_publish");
    fastmq_batch *batch;
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    bench_check(fastmq_receive(queue, 1, BENCH_TIMEOUT_NS, &batch), "fastmq_receive");
    uint64_t elapsed = bench_now_ns() - started;
    fastmq_batch_free(batch);
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
    bench_print("fastmq", "start", param, "us", (double)elapsed / 1e3);
}
