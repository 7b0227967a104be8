/* Updates of a latest queue: 1,000 subjects in turn, at 10 M/s in all if that can be reached, and a
 * reader on core 0 who takes what has changed 60 times a second, as a screen does.
 *
 * The figure is what an update costs its publisher, on the wall clock or in the time of its thread;
 * what it waits for its pace is not in it. When the publisher has ended, the reader must have seen
 * the newest value of each subject, none out of order, and memory must not have grown with updates.
 */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SUBJECTS 1000
#define ROUND_NS (SUBJECTS * UINT64_C(100)) /* all subjects once, at 10 M/s */
#define FRAME_NS (UINT64_C(1000000000) / 60)
#define MEMORY_MAX (SUBJECTS * UINT64_C(1024))

struct value {
    uint64_t number, subject;
};

struct board {
    fastmq_queue *queue;
    uint64_t newest[SUBJECTS]; /* the reader's */
    uint64_t wrong;
    atomic_bool stop;
};

/* Takes what has changed. */
static void read_frame(struct board *board) {
    for (;;) {
        fastmq_batch *batch;
        fastmq_status status = fastmq_receive(board->queue, 0, 0, &batch);
        if (status == FASTMQ_AGAIN) return;
        bench_check(status, "fastmq_receive");
        size_t count;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t index = 0; index < count; index++) {
            struct value value = {0, SUBJECTS};
            if (messages[index].payload.size == sizeof value)
                memcpy(&value, messages[index].payload.data, sizeof value);
            bool is_right = value.subject < SUBJECTS && value.number > board->newest[value.subject];
            if (is_right) board->newest[value.subject] = value.number;
            board->wrong += !is_right;
        }
        fastmq_batch_free(batch);
    }
}

static void *read_frames(void *context) {
    struct board *board = context;
    bench_pin(0);
    for (uint64_t next = bench_now_ns();; next += FRAME_NS) {
        /* Looked at first: the last frame has all that was published before. */
        bool is_last = atomic_load(&board->stop);
        read_frame(board);
        if (is_last) return NULL;
        struct timespec until = {(time_t)(next / 1000000000), (long)(next % 1000000000)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
}

static uint64_t thread_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

struct writer {
    fastmq_client *client;
    fastmq_publisher *publishers[SUBJECTS]; /* NULL: by string */
    uint64_t number;
};

static void update_all(struct writer *writer) {
    writer->number++;
    for (uint32_t subject = 0; subject < SUBJECTS; subject++) {
        struct value value = {writer->number, subject};
        fastmq_bytes payload = bench_bytes(&value, sizeof value);
        if (writer->publishers[subject] != NULL)
            bench_check(fastmq_publisher_publish(writer->publishers[subject], payload),
                        "fastmq_publisher_publish");
        else
            bench_check(fastmq_publish(writer->client, bench_name(subject), payload),
                        "fastmq_publish");
    }
}

/* Nanoseconds an update over `span_ns`. */
static double update(struct writer *writer, uint64_t span_ns, bool is_thread_time) {
    uint64_t started = bench_now_ns(), next = started, spent = 0, rounds = 0;
    do {
        uint64_t before = is_thread_time ? thread_ns() : bench_now_ns();
        update_all(writer);
        spent += (is_thread_time ? thread_ns() : bench_now_ns()) - before;
        rounds++;
        next += ROUND_NS;
        while (bench_now_ns() < next) {
        }
        /* Who is late does not hurry afterwards. */
        if (bench_now_ns() > next + ROUND_NS) next = bench_now_ns();
    } while (bench_now_ns() - started < span_ns);
    return (double)spent / (double)(rounds * SUBJECTS);
}

void bench_latest(const struct bench_plan *plan, const char *param) {
    static struct board board;
    static struct writer writer;
    pthread_t reader;
    bool is_handle = strncmp(param, "handle/", 7) == 0;
    const char *clock = strchr(param, '/');
    bool is_thread_time = clock != NULL && strcmp(clock, "/thread") == 0;
    if ((!is_handle && strncmp(param, "string/", 7) != 0)
        || (!is_thread_time && strcmp(clock, "/wall") != 0))
        bench_fail("%s is none of (string|handle)/(wall|thread)", param);
    bench_pin(1);
    writer.client = bench_open(FASTMQ_WAIT_BALANCED);
    fastmq_queue_options options = {.struct_size = sizeof options, .policy = FASTMQ_POLICY_LATEST};
    bench_check(fastmq_queue_open(writer.client, &options, &board.queue), "fastmq_queue_open");
    for (uint32_t subject = 0; subject < SUBJECTS; subject++) {
        bench_subscribe(writer.client, bench_name(subject), board.queue, subject);
        if (is_handle)
            bench_check(fastmq_publisher_open(writer.client, bench_name(subject),
                                              &writer.publishers[subject]),
                        "fastmq_publisher_open");
    }
    if (pthread_create(&reader, NULL, read_frames, &board) != 0) bench_fail("no thread");
    update(&writer, plan->warm_up_ns, is_thread_time);
    double cost = update(&writer, plan->measure_ns, is_thread_time);
    atomic_store(&board.stop, true);
    pthread_join(reader, NULL);
    for (uint32_t subject = 0; subject < SUBJECTS; subject++)
        board.wrong += board.newest[subject] != writer.number;
    if (board.wrong != 0)
        bench_fail("fastmq-bench: %llu values are wrong or not the newest",
                   (unsigned long long)board.wrong);
    fastmq_client_statistics figures = {.struct_size = sizeof figures};
    bench_check(fastmq_client_statistics_read(writer.client, &figures), "statistics");
    if (figures.memory_high > MEMORY_MAX)
        bench_fail("fastmq-bench: %llu bytes for %d subjects",
                   (unsigned long long)figures.memory_high, SUBJECTS);
    fastmq_close(writer.client);
    bench_print("fastmq", "latest", param, "ns", cost);
}
