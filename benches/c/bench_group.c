/* What a group costs: each message goes to one of its members, by load or by key.
 *
 * On one thread, so that nothing but the calls is measured: a burst is published, then each member
 * takes what it got. With keys each message carries one of 1,024; by subject it has none, and one
 * of 1,024 subjects, which is its key where the group wants one.
 */
#include "bench.h"

#include <stdio.h>
#include <string.h>

#define MEMBERS_MAX 64
#define BURST 256
#define KEYS 1024

struct group {
    fastmq_client *client;
    fastmq_publisher *publisher; /* NULL: by subject */
    fastmq_queue *queues[MEMBERS_MAX];
    uint32_t members, next;
    uint64_t sent, received;
};

static void send_one(struct group *group) {
    /* Neighbours have nothing in common. */
    uint32_t key = group->next++ * 2654435761u % KEYS;
    uint64_t payload[2] = {group->sent, key};
    fastmq_status status;
    if (group->publisher != NULL) {
        fastmq_outgoing message = {.struct_size = sizeof message};
        message.key = bench_bytes(&key, sizeof key);
        message.payload = bench_bytes(payload, sizeof payload);
        status = fastmq_publisher_publish_message(group->publisher, &message);
    } else {
        status = fastmq_publish(group->client, bench_name(key),
                                bench_bytes(payload, sizeof payload));
    }
    bench_check(status, "publish");
    group->sent++;
}

static uint64_t step(void *context) {
    struct group *group = context;
    for (int index = 0; index < BURST; index++) send_one(group);
    for (uint32_t member = 0; member < group->members; member++) {
        fastmq_batch *batch;
        while (fastmq_receive(group->queues[member], BURST, 0, &batch) == FASTMQ_OK) {
            size_t count;
            fastmq_batch_messages(batch, &count);
            group->received += count;
            fastmq_batch_free(batch);
        }
    }
    return BURST;
}

void bench_group(const struct bench_plan *plan, const char *param) {
    static struct group group;
    bool is_keyed = strncmp(param, "key-shared/", 11) == 0;
    if (!is_keyed && strncmp(param, "balanced/", 9) != 0)
        bench_fail("%s begins with neither balanced/ nor key-shared/", param);
    const char *rest;
    group.members = (uint32_t)bench_number(param + (is_keyed ? 11 : 9), &rest);
    if (group.members == 0 || group.members > MEMBERS_MAX)
        bench_fail("%u members; from 1 to %d", group.members, MEMBERS_MAX);
    bool has_keys = strcmp(rest, "/keys") == 0;
    if (!has_keys && strcmp(rest, "/subjects") != 0)
        bench_fail("%s ends with neither /keys nor /subjects", param);
    group.client = bench_open(FASTMQ_WAIT_BUSY_POLL);
    for (uint32_t member = 0; member < group.members; member++) {
        fastmq_subscribe_options options = {.struct_size = sizeof options};
        fastmq_subscription *subscription;
        options.queue = group.queues[member] = bench_queue(group.client, FASTMQ_WAIT_BUSY_POLL);
        options.group = bench_bytes("workers", 7);
        options.group_mode = is_keyed ? FASTMQ_GROUP_KEY_SHARED : FASTMQ_GROUP_BALANCED;
        bench_check(fastmq_subscribe(group.client, bench_bytes(">", 1), &options, &subscription),
                    "fastmq_subscribe");
    }
    if (has_keys)
        bench_check(fastmq_publisher_open(group.client, bench_name(0), &group.publisher),
                    "fastmq_publisher_open");
    bench_pin(1);
    double rate = bench_rate(plan, step, NULL, &group);
    fastmq_close(group.client);
    if (group.sent != group.received)
        bench_fail("fastmq-bench: %llu messages are lost",
                   (unsigned long long)(group.sent - group.received));
    bench_print("fastmq", "group", param, "M msg/s", rate);
}
