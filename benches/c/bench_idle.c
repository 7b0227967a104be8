/* What doing nothing costs: how often the threads of an idle low-power client wake up, and its
 * resident bytes. All of its 1,000 subscriptions have got a message before. What wakes up is seen
 * in the kernel's count of context switches, of all threads but the one that measures.
 */
#include "bench.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SUBSCRIPTIONS 1000
#define IDLE_NS UINT64_C(1000000000)
#define SETTLE_NS UINT64_C(100000000) /* until the last thread sleeps again */

struct idle {
    fastmq_client *client;
    fastmq_queue *queue;
    _Atomic uint64_t received;
};

static void pass(uint64_t ns) {
    struct timespec left = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    while (nanosleep(&left, &left) != 0) {
    }
}

/* The context switches so far of every thread but this one, and how many threads these are. */
static uint64_t switches(uint64_t *threads) {
    uint64_t sum = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) bench_fail("/proc/self/task cannot be read");
    *threads = 0;
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        char path[64], line[256];
        unsigned long long count = 0;
        int id = atoi(task->d_name);
        if (id == 0 || id == getpid()) continue;
        snprintf(path, sizeof path, "/proc/self/task/%d/status", id);
        FILE *file = fopen(path, "r");
        if (file == NULL) bench_fail("%s cannot be read", path);
        while (fgets(line, sizeof line, file) != NULL)
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1
                || sscanf(line, "nonvoluntary_ctxt_switches: %llu", &count) == 1)
                sum += count;
        fclose(file);
        *threads += 1;
    }
    closedir(tasks);
    return sum;
}

static void on_message(const fastmq_message *message, void *context) {
    struct idle *idle = context;
    (void)message;
    atomic_fetch_add(&idle->received, 1);
}

/* Waits for messages without end; closing the client ends it. */
static void *wait_for_messages(void *context) {
    struct idle *idle = context;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(idle->queue, 0, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        fastmq_batch_messages(batch, &count);
        atomic_fetch_add(&idle->received, count);
        fastmq_batch_free(batch);
    }
    return NULL;
}

void bench_idle(const struct bench_plan *plan, const char *param) {
    static struct idle idle;
    uint64_t threads = 0;
    pthread_t reader;
    (void)plan;
    int is_queue = strncmp(param, "queue/", 6) == 0, is_bytes = strstr(param, "/bytes") != NULL;
    if (!is_queue && strncmp(param, "thread/", 7) != 0)
        bench_fail("%s is none of (queue|thread)/(wake-ups|bytes)", param);
    switches(&threads); /* The first calls bring in stdio's own pages. */
    bench_resident_bytes();
    uint64_t before = bench_resident_bytes();
    idle.client = bench_open(FASTMQ_WAIT_LOW_POWER);
    if (is_queue) {
        idle.queue = bench_queue(idle.client, FASTMQ_WAIT_LOW_POWER);
        if (pthread_create(&reader, NULL, wait_for_messages, &idle) != 0) bench_fail("no thread");
    }
    for (uint32_t index = 0; index < SUBSCRIPTIONS; index++) {
        if (is_queue) {
            bench_subscribe(idle.client, bench_name(index), idle.queue, index);
            continue;
        }
        fastmq_subscribe_options options = {.struct_size = sizeof options,
                                            .delivery = FASTMQ_DELIVERY_THREAD,
                                            .on_message = on_message,
                                            .context = &idle};
        fastmq_subscription *subscription;
        bench_check(fastmq_subscribe(idle.client, bench_name(index), &options, &subscription),
                    "fastmq_subscribe");
    }
    for (uint32_t index = 0; index < SUBSCRIPTIONS; index++)
        bench_check(
            fastmq_publish(idle.client, bench_name(index), bench_bytes("16 bytes of text", 16)),
            "fastmq_publish");
    for (int turn = 0; atomic_load(&idle.received) < SUBSCRIPTIONS; turn++) {
        if (turn == 1000) bench_fail("not all messages came");
        pass(1000000);
    }
    pass(SETTLE_NS);
    uint64_t after = bench_resident_bytes(), switched = switches(&threads);
    double added = after > before ? (double)(after - before) : 0;
    pass(IDLE_NS);
    switched = switches(&threads) - switched;
    if (threads == 0) bench_fail("there is no thread that could wake up");
    fastmq_close(idle.client);
    if (is_queue) pthread_join(reader, NULL);
    if (is_bytes)
        bench_print("fastmq", "idle", param, "bytes", added);
    else
        bench_print("fastmq", "idle", param, "a second", (double)switched);
}
