/* Work sharing: three workers in one group, each job goes to one of them, the less loaded first.
 *
 * A full queue slows the publisher down instead of losing jobs: that is backpressure, the default.
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

enum { WORKERS = 3, JOBS = 30000 };

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "work_sharing: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

struct worker {
    fastmq_subscription *subscription;
    pthread_t thread;
    uint32_t jobs;
    uint8_t *done; /* shared; each job is written by the one worker that got it */
};

/* Takes jobs in batches until the queue is drained (FASTMQ_END). */
static void *work(void *context)
{
    struct worker *worker = context;
    fastmq_queue *queue = fastmq_subscription_queue(worker->subscription);
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 32, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            uint32_t job = 0;
            memcpy(&job, messages[i].payload.data, sizeof job);
            worker->done[job]++;
            worker->jobs++;
        }
        fastmq_batch_free(batch);
    }
    return NULL;
}

int main(void)
{
    static uint8_t done[JOBS];
    struct worker workers[WORKERS];
    fastmq_client *mq = NULL;
    must(fastmq_open(NULL, &mq), "open");

    /* The same pattern and the same group name make the members of a group. */
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.group = text("resizers");
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.done = done};
        must(fastmq_subscribe(mq, text("image.resize"), &options, &workers[i].subscription),
             "subscribe");
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            fprintf(stderr, "work_sharing: cannot start a thread\n");
            return 1;
        }
    }

    fastmq_publisher *jobs = NULL;
    must(fastmq_publisher_open(mq, text("image.resize"), &jobs), "open a publisher");
    for (uint32_t job = 0; job < JOBS; job++) {
        fastmq_bytes payload = {(const uint8_t *)&job, sizeof job};
        /* Waits while the chosen worker has no room: the publisher runs at the workers' pace. */
        must(fastmq_publisher_publish_wait(jobs, payload, 10 * SECOND), "publish a job");
    }

    must(fastmq_drain(mq, 10 * SECOND), "drain");
    uint32_t wrong = 0;
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        printf("worker %d did %5u jobs\n", i, (unsigned)workers[i].jobs);
        fastmq_unsubscribe(workers[i].subscription);
    }
    for (uint32_t job = 0; job < JOBS; job++) {
        wrong += done[job] != 1;
    }
    printf("%u of %u jobs were not done exactly once\n", (unsigned)wrong, (unsigned)JOBS);
    fastmq_publisher_close(jobs);
    fastmq_close(mq);
    return wrong == 0 ? 0 : 1;
}
