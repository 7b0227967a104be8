/* A real job: 20,000 flights through the embedded engine, from C.
 *
 *     main --- flight.<ORIGIN>.<DESTINATION> --+--> group `delays` on flight.>   3 workers
 *      |                                       +--> flight.LAX.*, flight.*.JFK   1 board
 *      +------ ask.delay.<AIRPORT> <--------------> responder, on a thread of the library
 *
 * The workers share the flights: each goes to one of them. They compute the delays per airport of
 * origin; the responder answers questions about them while the stream runs. At the end everything
 * is compared with a direct computation from the file; a difference ends the program with 1.
 *
 * Options: --repeat N, --file PATH, --check (for the tests: a short run, one line).
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND UINT64_C(1000000000)
#define PATIENCE (10 * SECOND)

enum {
    FLIGHTS_MAX = 200000,
    AIRPORTS_MAX = 1000,
    WORKERS = 3,
    REPEAT_DEFAULT = 50,
    REPEAT_MAX = 100000,
    LATE_MINUTES = 15,
    FLIGHTS_PER_QUESTION = 10, /* in the first replay */
    ROWS = 12,
};
enum { TAG_FROM_LAX, TAG_TO_JFK, TAGS };

/* The payload of a flight message: 8 bytes, in the byte order of this machine (it stays inside
 * the process). Origin and destination are in the subject. */
struct flight_message {
    uint32_t number; /* which line of the file, from 0 */
    int16_t delay_minutes;
    uint16_t origin; /* index of the airport */
};

/* What is known about the delays of one airport; also the answer of the responder. */
struct delays {
    uint64_t count, late;
    int64_t sum;
    int32_t min, max;
};

struct flight {
    uint16_t origin, destination;
    int16_t delay_minutes;
    uint8_t subject_size;
    char subject[sizeof "flight.LAX.JFK"];
};

struct airport {
    char code[4];
};

/* All that the threads share. `seen` counts how often each flight reached a worker. */
static struct flight flights[FLIGHTS_MAX];
static struct airport airports[AIRPORTS_MAX];
static _Atomic uint32_t seen[FLIGHTS_MAX];
static size_t flight_count, airport_count;
static fastmq_client *mq;
static bool is_quiet;

/* A worker owns its part of the statistics; the lock is for the responder, which reads it. */
struct worker {
    pthread_t thread;
    fastmq_subscription *subscription;
    uint64_t flights;
    pthread_mutex_t lock;
    struct delays delays[AIRPORTS_MAX];
};
static struct worker workers[WORKERS];

struct board {
    pthread_t thread;
    fastmq_queue *queue;
    fastmq_subscription *subscriptions[TAGS];
    uint64_t counts[TAGS];
};

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "flights: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

/* the file */

/* The index of an airport by its code of three capitals; a new one if `may_add`; -1: none. */
static int airport_index(const char *code, bool may_add)
{
    static int16_t by_code[26 * 26 * 26]; /* index + 1 */
    int slot = 0;
    for (int i = 0; i < 3; i++) {
        if (code[i] < 'A' || code[i] > 'Z') {
            return -1;
        }
        slot = slot * 26 + (code[i] - 'A');
    }
    if (by_code[slot] == 0 && may_add && airport_count < AIRPORTS_MAX) {
        memcpy(airports[airport_count].code, code, 3);
        by_code[slot] = (int16_t)++airport_count;
    }
    return by_code[slot] - 1;
}

/* A line is `2001/01/01 00:47,66,1750,DTW,LAS`: time, delay, distance, origin, destination. */
static bool parse_flight(const char *line, struct flight *flight)
{
    int delay = 0;
    char origin[4], destination[4];
    if (sscanf(line, "%*[^,],%d,%*d,%3[A-Z],%3[A-Z]", &delay, origin, destination) != 3
        || strlen(origin) != 3 || strlen(destination) != 3 || delay < INT16_MIN
        || delay > INT16_MAX) {
        return false;
    }
    int from = airport_index(origin, true), to = airport_index(destination, true);
    if (from < 0 || to < 0) {
        return false;
    }
    flight->origin = (uint16_t)from;
    flight->destination = (uint16_t)to;
    flight->delay_minutes = (int16_t)delay;
    flight->subject_size = (uint8_t)snprintf(flight->subject, sizeof flight->subject,
                                             "flight.%s.%s", origin, destination);
    return true;
}

static void read_flights(const char *path)
{
    char line[256];
    unsigned number = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "flights: cannot read %s: %s; run this from the top of the repository, or "
                        "give --file PATH\n", path, strerror(errno));
        exit(1);
    }
    while (fgets(line, sizeof line, file) != NULL) {
        if (number++ == 0) {
            continue; /* the names of the columns */
        }
        if (flight_count == FLIGHTS_MAX || !parse_flight(line, &flights[flight_count])) {
            fprintf(stderr, "flights: %s, line %u is not a flight (at most %d are read): %s\n",
                    path, number, FLIGHTS_MAX, line);
            exit(1);
        }
        flight_count++;
    }
    fclose(file);
    if (flight_count == 0) {
        fprintf(stderr, "flights: %s has no flight in it\n", path);
        exit(1);
    }
}

/* the statistics */

static void add_flight(struct delays *delays, int32_t minutes)
{
    delays->min = delays->count == 0 || minutes < delays->min ? minutes : delays->min;
    delays->max = delays->count == 0 || minutes > delays->max ? minutes : delays->max;
    delays->sum += minutes;
    delays->late += minutes > LATE_MINUTES;
    delays->count++;
}

static void merge(struct delays *into, const struct delays *part)
{
    if (part->count == 0) {
        return;
    }
    into->min = into->count == 0 || part->min < into->min ? part->min : into->min;
    into->max = into->count == 0 || part->max > into->max ? part->max : into->max;
    into->sum += part->sum;
    into->late += part->late;
    into->count += part->count;
}

/* What all workers know about one airport, at this moment. */
static struct delays delays_of(size_t airport)
{
    struct delays all = {0, 0, 0, 0, 0};
    for (int i = 0; i < WORKERS; i++) {
        pthread_mutex_lock(&workers[i].lock);
        merge(&all, &workers[i].delays[airport]);
        pthread_mutex_unlock(&workers[i].lock);
    }
    return all;
}

/* the readers */

/* A worker takes flights in batches, in place, until its queue is drained (FASTMQ_END). */
static void *work(void *context)
{
    struct worker *worker = context;
    fastmq_queue *queue = fastmq_subscription_queue(worker->subscription);
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 256, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        pthread_mutex_lock(&worker->lock);
        for (size_t i = 0; i < count; i++) {
            struct flight_message flight;
            memcpy(&flight, messages[i].payload.data, sizeof flight);
            add_flight(&worker->delays[flight.origin], flight.delay_minutes);
            atomic_fetch_add_explicit(&seen[flight.number], 1, memory_order_relaxed);
        }
        pthread_mutex_unlock(&worker->lock);
        worker->flights += count;
        fastmq_batch_free(batch);
    }
    return NULL;
}

/* The board has two patterns on one queue; the tag says which of them a message is for. */
static void *watch(void *context)
{
    struct board *board = context;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(board->queue, 256, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            board->counts[messages[i].tag]++;
        }
        fastmq_batch_free(batch);
    }
    return NULL;
}

/* Answers `ask.delay.<AIRPORT>`; runs on a thread of the library. */
static void answer(const fastmq_message *question, void *context)
{
    const char *code = (const char *)question->subject.data + strlen("ask.delay.");
    int airport = question->subject.size == strlen("ask.delay.LAX")
        ? airport_index(code, false) : -1;
    (void)context;
    if (airport < 0) {
        fastmq_outgoing unknown = {.struct_size = sizeof unknown};
        unknown.payload = text("no flight has left from there");
        fastmq_reply_message(mq, question->token, &unknown, FASTMQ_NOT_FOUND);
        return;
    }
    struct delays delays = delays_of((size_t)airport);
    fastmq_reply(mq, question->token, (fastmq_bytes){(const uint8_t *)&delays, sizeof delays});
}

static void start_thread(pthread_t *thread, void *(*body)(void *), void *context)
{
    int error = pthread_create(thread, NULL, body, context);
    if (error != 0) {
        fprintf(stderr, "flights: cannot start a thread: %s\n", strerror(error));
        exit(1);
    }
}

static void start_readers(struct board *board, fastmq_subscription **responder)
{
    fastmq_subscribe_options group = {.struct_size = sizeof group, .group = text("delays")};
    for (int i = 0; i < WORKERS; i++) {
        pthread_mutex_init(&workers[i].lock, NULL);
        must(fastmq_subscribe(mq, text("flight.>"), &group, &workers[i].subscription),
             "subscribe a worker");
        start_thread(&workers[i].thread, work, &workers[i]);
    }
    static const char *const patterns[TAGS] = {"flight.LAX.*", "flight.*.JFK"};
    must(fastmq_queue_open(mq, NULL, &board->queue), "open the board's queue");
    for (uint64_t tag = 0; tag < TAGS; tag++) {
        fastmq_subscribe_options shared = {.struct_size = sizeof shared};
        shared.queue = board->queue;
        shared.tag = tag;
        must(fastmq_subscribe(mq, text(patterns[tag]), &shared, &board->subscriptions[tag]),
             "subscribe the board");
    }
    start_thread(&board->thread, watch, board);
    fastmq_subscribe_options callback = {.struct_size = sizeof callback};
    callback.delivery = FASTMQ_DELIVERY_THREAD;
    callback.on_message = answer;
    must(fastmq_subscribe(mq, text("ask.delay.*"), &callback, responder), "subscribe an answer");
}

/* the stream */

/* Publishes a flight; a full queue slows the stream down, it loses nothing. */
static void publish_flight(size_t number)
{
    const struct flight *flight = &flights[number];
    struct flight_message content = {(uint32_t)number, flight->delay_minutes, flight->origin};
    fastmq_outgoing message = {.struct_size = sizeof message};
    message.subject = (fastmq_bytes){(const uint8_t *)flight->subject, flight->subject_size};
    message.payload = (fastmq_bytes){(const uint8_t *)&content, sizeof content};
    fastmq_status status = fastmq_publish(mq, message.subject, message.payload);
    if (status == FASTMQ_AGAIN) {
        status = fastmq_publish_wait(mq, &message, PATIENCE);
    }
    must(status, "publish a flight");
}

struct questions {
    uint64_t *latency_ns;
    size_t count, not_growing;
};

/* Asks for the delays of one airport; a later answer must never know fewer flights. */
static void ask(size_t airport, struct questions *questions)
{
    static uint64_t known[AIRPORTS_MAX];
    struct delays delays;
    size_t size = 0;
    char subject[sizeof "ask.delay.LAX"];
    snprintf(subject, sizeof subject, "ask.delay.%s", airports[airport].code);
    uint64_t start = now_ns();
    must(fastmq_request_into(mq, text(subject), (fastmq_bytes){NULL, 0}, PATIENCE, &delays,
                             sizeof delays, &size), "ask for delays");
    questions->latency_ns[questions->count++] = now_ns() - start;
    questions->not_growing += size != sizeof delays || delays.count < known[airport];
    known[airport] = delays.count;
}

static void replay_with_questions(struct questions *questions)
{
    for (size_t i = 0; i < flight_count; i++) {
        publish_flight(i);
        if (i % FLIGHTS_PER_QUESTION == 0) {
            ask(flights[i].origin, questions);
        }
    }
}

/* the report */

static int by_flights(const void *a, const void *b)
{
    const struct delays *one = *(struct delays *const *)a, *other = *(struct delays *const *)b;
    return one->count != other->count ? (one->count < other->count ? 1 : -1)
                                      : (one > other) - (one < other);
}

static int by_value(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
    return (one > other) - (one < other);
}

static double percentile_us(const struct questions *questions, double share)
{
    size_t index = (size_t)(share * (double)(questions->count - 1) + 0.5);
    return (double)questions->latency_ns[index] / 1000.0;
}

static void print_table(struct delays *all)
{
    static struct delays *order[AIRPORTS_MAX];
    for (size_t i = 0; i < airport_count; i++) {
        order[i] = &all[i];
    }
    qsort(order, airport_count, sizeof order[0], by_flights);
    printf("airport  flights  mean delay   min   max   more than %d min late\n", LATE_MINUTES);
    for (size_t i = 0; i < airport_count && i < ROWS && order[i]->count > 0; i++) {
        const struct delays *row = order[i];
        double count = (double)row->count;
        printf("%-7s %8llu %7.1f min %5d %5d %14.1f %%\n", airports[row - all].code,
               (unsigned long long)row->count, (double)row->sum / count, row->min, row->max,
               100.0 * (double)row->late / count);
    }
}

/* Compares with a direct computation from the file; returns the number of differences. */
static size_t compare(const struct delays *all, const struct board *board, uint64_t replays)
{
    static struct delays direct[AIRPORTS_MAX];
    uint64_t tags[TAGS] = {0, 0};
    size_t wrong = 0;
    int lax = airport_index("LAX", false), jfk = airport_index("JFK", false);
    for (size_t i = 0; i < flight_count; i++) {
        const struct flight *flight = &flights[i];
        add_flight(&direct[flight->origin], flight->delay_minutes);
        tags[TAG_FROM_LAX] += flight->origin == lax;
        tags[TAG_TO_JFK] += flight->destination == jfk;
        if (atomic_load(&seen[i]) != replays) {
            wrong++;
            fprintf(stderr, "flights: flight %zu (%s) reached a worker %u times, expected %llu\n",
                    i, flight->subject, (unsigned)atomic_load(&seen[i]),
                    (unsigned long long)replays);
        }
    }
    for (size_t i = 0; i < airport_count; i++) {
        const struct delays *want = &direct[i], *got = &all[i];
        if (got->count != want->count * replays || got->late != want->late * replays
            || got->sum != want->sum * (int64_t)replays || got->min != want->min
            || got->max != want->max) {
            wrong++;
            fprintf(stderr, "flights: %s has %llu flights, %lld min, %d to %d; the file says "
                            "%llu flights, %lld min, %d to %d\n", airports[i].code,
                    (unsigned long long)got->count, (long long)got->sum, got->min, got->max,
                    (unsigned long long)(want->count * replays),
                    (long long)(want->sum * (int64_t)replays), want->min, want->max);
        }
    }
    for (int i = 0; i < TAGS; i++) {
        if (board->counts[i] != tags[i] * replays) {
            wrong++;
            fprintf(stderr, "flights: pattern %d saw %llu flights, the file says %llu\n", i,
                    (unsigned long long)board->counts[i], (unsigned long long)(tags[i] * replays));
        }
    }
    return wrong;
}

static void report(struct delays *all, const struct board *board, struct questions *questions,
                   uint64_t replays, double seconds, double rate)
{
    qsort(questions->latency_ns, questions->count, sizeof questions->latency_ns[0], by_value);
    printf("%zu flights of %zu airports, replayed %llu times through an embedded broker\n\n",
           flight_count, airport_count, (unsigned long long)replays);
    print_table(all);
    printf("\nflight.LAX.*  %llu flights\nflight.*.JFK  %llu flights\n",
           (unsigned long long)board->counts[TAG_FROM_LAX],
           (unsigned long long)board->counts[TAG_TO_JFK]);
    printf("group delays  ");
    for (int i = 0; i < WORKERS; i++) {
        printf("%sworker %d: %llu", i == 0 ? "" : ", ", i,
               (unsigned long long)workers[i].flights);
    }
    printf("\n\n");
    if (replays > 1) {
        printf("stream     %.2f million flights/s, worked off by the group (%.2f s)\n", rate / 1e6,
               seconds);
    }
    printf("questions  %zu while the stream ran; answered in p50 %.1f, p99 %.1f, p99.9 %.1f, "
           "max %.1f us\n", questions->count, percentile_us(questions, 0.5),
           percentile_us(questions, 0.99), percentile_us(questions, 0.999),
           percentile_us(questions, 1.0));
    printf("checked    every flight counted exactly once, all figures equal to the file's\n");
    printf("\nTo try next:\n"
           "  make run ARGS='--repeat 500'     a longer stream, a steadier rate\n"
           "  examples/c/publish_subscribe.c   patterns, handles and headers in 100 lines\n"
           "  examples/c/request_reply.c       a thousand questions in flight\n"
           "  make bench                       rates and latencies beside the bare machine's\n");
}

/* options */

static void usage(FILE *out)
{
    fprintf(out, "usage: flights [--repeat N] [--file PATH] [--check]\n"
                 "  --repeat N   replay the file N times, 1 to %d; default %d\n"
                 "  --file PATH  default examples/data/flights.csv\n"
                 "  --check      a short run that prints one line\n", REPEAT_MAX, REPEAT_DEFAULT);
}

static uint64_t parse_repeat(const char *word)
{
    char *end = NULL;
    long repeat = word ? strtol(word, &end, 10) : 0;
    if (word == NULL || end == word || *end != '\0' || repeat < 1 || repeat > REPEAT_MAX) {
        fprintf(stderr, "flights: --repeat is %s, not a number from 1 to %d\n",
                word ? word : "empty", REPEAT_MAX);
        exit(2);
    }
    return (uint64_t)repeat;
}

static const char *parse_options(int count, char **words, uint64_t *repeat)
{
    const char *path = "examples/data/flights.csv";
    *repeat = 0;
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--check") == 0) {
            is_quiet = true;
        } else if (strcmp(words[i], "--repeat") == 0) {
            *repeat = parse_repeat(words[++i]); /* words[count] is NULL */
        } else if (strcmp(words[i], "--file") == 0 && i + 1 < count) {
            path = words[++i];
        } else {
            bool is_help = strcmp(words[i], "--help") == 0;
            if (!is_help) {
                fprintf(stderr, "flights: %s is not an option, or lacks its value\n", words[i]);
            }
            usage(is_help ? stdout : stderr);
            exit(is_help ? 0 : 2);
        }
    }
    if (*repeat == 0) {
        *repeat = is_quiet ? 3 : REPEAT_DEFAULT;
    }
    return path;
}

int main(int count, char **words)
{
    static struct board board;
    static struct delays all[AIRPORTS_MAX];
    struct questions questions = {NULL, 0, 0};
    fastmq_subscription *responder = NULL;
    uint64_t repeat = 0;
    read_flights(parse_options(count, words, &repeat));
    questions.latency_ns = malloc((flight_count / FLIGHTS_PER_QUESTION + 1)
                                  * sizeof questions.latency_ns[0]);
    if (questions.latency_ns == NULL) {
        fprintf(stderr, "flights: out of memory\n");
        return 1;
    }

    must(fastmq_open(NULL, &mq), "open");
    start_readers(&board, &responder);
    replay_with_questions(&questions);

    /* The other replays run at full speed. The clock stops when the workers are done: drain lets
     * them take what is queued, then each of their receives returns FASTMQ_END. */
    uint64_t start = now_ns();
    for (uint64_t replay = 1; replay < repeat; replay++) {
        for (size_t i = 0; i < flight_count; i++) {
            publish_flight(i);
        }
    }
    must(fastmq_drain(mq, PATIENCE), "drain");
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    double rate = (double)((repeat - 1) * flight_count) / seconds;
    pthread_join(board.thread, NULL);

    for (size_t i = 0; i < airport_count; i++) {
        all[i] = delays_of(i);
    }
    size_t wrong = compare(all, &board, repeat) + questions.not_growing;
    if (questions.not_growing != 0) {
        fprintf(stderr, "flights: %zu answers knew fewer flights than one before\n",
                questions.not_growing);
    }
    if (wrong == 0 && is_quiet) {
        printf("flights: %llu replays of %zu flights and %zu answers are as the file says\n",
               (unsigned long long)repeat, flight_count, questions.count);
    } else if (wrong == 0) {
        report(all, &board, &questions, repeat, seconds, rate);
    }

    fastmq_unsubscribe(responder);
    for (int i = 0; i < WORKERS; i++) {
        fastmq_unsubscribe(workers[i].subscription);
        pthread_mutex_destroy(&workers[i].lock);
    }
    for (int i = 0; i < TAGS; i++) {
        fastmq_unsubscribe(board.subscriptions[i]);
    }
    fastmq_queue_close(board.queue);
    fastmq_close(mq);
    free(questions.latency_ns);
    return wrong == 0 ? 0 : 1;
}
