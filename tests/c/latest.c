/* Latest queues: of each subject the newest message waits, and what it replaced is told.
 *
 * Decided here: such a queue is never full, so a publish is not refused for its sake; it answers no
 * requests; and it takes no part in a group.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

#include <poll.h>

static fastmq_queue *open_latest(fastmq_client *client)
{
    return open_queue(client, FASTMQ_POLICY_LATEST, 0);
}

static int is_board(const fastmq_message *m, const char *subject, uint32_t number, uint32_t lost)
{
    return same(m->subject, subject) && number_of(m) == number && m->lost_before == lost;
}

static void the_newest_in_order(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_latest(client);
    fastmq_subscription *board = subscribe_on(client, "board.*", queue, 7);
    fastmq_publisher *b = open_publisher(client, "board.b");
    size_t count = 0;
    const fastmq_message *m = NULL;
    for (uint32_t number = 0; number < 100; number++) {
        NEED(publish_number(client, "board.c", number) == FASTMQ_OK);
        NEED(fastmq_publisher_publish(b, bytes(&number, sizeof number)) == FASTMQ_OK);
        NEED(publish_wide(client, "board.a", number) == FASTMQ_OK);
    }
    fastmq_queue_statistics figures = queue_figures(queue);
    CHECK_NUMBER(figures.pending, 3, "one message waits for each subject");
    CHECK_NUMBER(figures.replaced, 297, "the others were replaced, and counted");
    CHECK_NUMBER(figures.dropped, 0, "which is not a loss");
    fastmq_batch *batch = take(queue, 0, &m, &count);
    CHECK_NUMBER(count, 3, "the newest of each subject comes");
    CHECK(is_board(&m[0], "board.c", 99, 99) && is_board(&m[1], "board.b", 99, 99)
              && is_board(&m[2], "board.a", 99, 99),
          "in the order of the first changes, with what was replaced");
    CHECK_NUMBER(m[1].sequence, 100, "the publisher's sequence is that of the newest");
    CHECK_NUMBER(m[1].tag, 7, "and the tag that of the subscription");
    for (uint32_t number = 100; number < 200; number++) {
        NEED(publish_wide(client, "board.c", number) == FASTMQ_OK);
    }
    CHECK(is_board(&m[0], "board.c", 99, 99), "an open batch stays while subjects change");
    fastmq_batch_free(batch);
    batch = take(queue, 0, &m, &count);
    CHECK(count == 1 && is_board(&m[0], "board.c", 199, 99), "then only what has changed comes");
    fastmq_batch_free(batch);
    CHECK_STATUS(fastmq_receive(queue, 0, 0, &batch), FASTMQ_AGAIN, "and then nothing");
    fastmq_publisher_close(b);
    fastmq_unsubscribe(board);
    fastmq_close(client);
    fastmq_queue_close(queue);
}

static void beside_others(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *latest = open_latest(client);
    fastmq_queue *strict = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    fastmq_subscription *a = subscribe_on(client, "mixed", latest, 0);
    fastmq_subscription *b = subscribe_on(client, "mixed", strict, 0);
    uint32_t accepted = 0;
    size_t count = 0;
    const fastmq_message *m = NULL;
    fastmq_batch *batch = NULL;
    while (publish_wide(client, "mixed", accepted) == FASTMQ_OK) {
        accepted++;
    }
    batch = take(latest, 0, &m, &count);
    CHECK(is_board(&m[0], "mixed", accepted - 1, accepted - 1),
          "a message that another queue refused changes no value");
    fastmq_batch_free(batch);
    fastmq_subscription *c = subscribe_on(client, "alone", latest, 0);
    fastmq_outgoing question = outgoing("alone", text("?"));
    CHECK_STATUS(fastmq_request(client, &question, PATIENCE, &batch), FASTMQ_NO_RESPONDER,
                 "a latest queue answers no requests");
    fastmq_unsubscribe(a);
    fastmq_unsubscribe(b);
    fastmq_unsubscribe(c);
    fastmq_queue_close(latest);
    fastmq_queue_close(strict);
    fastmq_close(client);
}

static void refused(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *latest = open_latest(client);
    fastmq_subscription *none = NULL;
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = latest};
    options.group = text("g");
    CHECK_STATUS(fastmq_subscribe(client, text("a"), &options, &none), FASTMQ_INVALID,
                 "a group cannot use a latest queue");
    options.group = text("");
    options.policy = FASTMQ_POLICY_LATEST;
    CHECK_STATUS(fastmq_subscribe(client, text("a"), &options, &none), FASTMQ_INVALID,
                 "a queue that is given has a policy of its own");
    CHECK(none == NULL, "and nothing is to be freed");
    options.queue = NULL;
    fastmq_subscription *own = subscribe_with(client, "a", &options);
    NEED(publish_number(client, "a", 1) == FASTMQ_OK);
    NEED(publish_number(client, "a", 2) == FASTMQ_OK);
    CHECK_NUMBER(take_all(fastmq_subscription_queue(own)), 1, "its own may have any policy");
    fastmq_unsubscribe(own);
    fastmq_queue_close(latest);
    fastmq_close(client);
}

struct heard {
    uint32_t calls, newest, counted;
};

static void on_message(const fastmq_message *message, void *context)
{
    struct heard *heard = context;
    heard->calls++;
    heard->newest = number_of(message);
    heard->counted += 1 + message->lost_before;
}

static void in_a_loop(void)
{
    fastmq_client *client = open_client();
    struct heard heard = {0};
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.policy = FASTMQ_POLICY_LATEST;
    options.delivery = FASTMQ_DELIVERY_DISPATCH;
    options.on_message = on_message;
    options.context = &heard;
    fastmq_subscription *subscription = subscribe_with(client, "tick", &options);
    struct pollfd ready = {.fd = fastmq_fd(client), .events = POLLIN};
    uint32_t what = 0;
    NEED(ready.fd >= 0);
    for (uint32_t frame = 1; frame <= 3; frame++) {
        for (uint32_t number = 1; number <= 1000; number++) {
            NEED(publish_number(client, "tick", frame * 1000 + number) == FASTMQ_OK);
        }
        NEED(poll(&ready, 1, 0) == 1);
        NEED(fastmq_dispatch(client, 0, 0, &what) == FASTMQ_OK);
        CHECK(heard.calls == frame && heard.newest == frame * 1000 + 1000
                  && heard.counted == frame * 1000,
              "a frame gets the newest, once, and how many it replaced");
        CHECK(poll(&ready, 1, 0) == 0, "then the loop rests");
    }
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

struct ticker {
    fastmq_client *client;
    uint32_t subjects, rounds;
};

static void *tick(void *context)
{
    struct ticker *ticker = context;
    char subject[32];
    for (uint32_t round = 1; round <= ticker->rounds; round++) {
        for (uint32_t at = 0; at < ticker->subjects; at++) {
            snprintf(subject, sizeof subject, "price.%u", at);
            NEED(publish_number(ticker->client, subject, round) == FASTMQ_OK);
        }
    }
    return NULL;
}

/* The number behind "price.". */
static unsigned number_in(fastmq_bytes subject)
{
    char digits[16] = {0};
    NEED(subject.size > 6 && subject.size < 6 + sizeof digits);
    memcpy(digits, subject.data + 6, subject.size - 6);
    return (unsigned)strtoul(digits, NULL, 10);
}

static void under_load(void)
{
    enum { SUBJECTS = 50, ROUNDS = 2000 };
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_latest(client);
    fastmq_subscription *subscription = subscribe_on(client, "price.*", queue, 0);
    struct ticker ticker = {client, SUBJECTS, ROUNDS};
    pthread_t thread;
    uint64_t counted = 0, backwards = 0;
    uint32_t newest[SUBJECTS] = {0};
    NEED(pthread_create(&thread, NULL, tick, &ticker) == 0);
    while (counted < (uint64_t)SUBJECTS * ROUNDS) {
        fastmq_batch *batch = NULL;
        size_t count = 0;
        NEED(fastmq_receive(queue, 0, PATIENCE, &batch) == FASTMQ_OK);
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            unsigned at = number_in(m[i].subject);
            backwards += number_of(&m[i]) <= newest[at];
            newest[at] = number_of(&m[i]);
            counted += 1 + m[i].lost_before;
        }
        fastmq_batch_free(batch);
    }
    NEED(pthread_join(thread, NULL) == 0);
    int is_newest = 1;
    for (unsigned at = 0; at < SUBJECTS; at++) {
        is_newest &= newest[at] == ROUNDS;
    }
    CHECK_NUMBER(counted, SUBJECTS * ROUNDS, "every update is shown or told");
    CHECK_NUMBER(backwards, 0, "no subject goes back");
    CHECK(is_newest, "of every subject the newest was seen");
    CHECK(client_figures(client).memory_high < SUBJECTS * 1024, "memory does not grow with them");
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

static void memory_max(void)
{
    fastmq_options options = {.struct_size = sizeof options, .memory_max = 64 << 10};
    fastmq_client *client = NULL;
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    fastmq_queue *queue = open_latest(client);
    fastmq_subscription *subscription = subscribe_on(client, "many.*", queue, 0);
    char subject[32];
    uint32_t kept = 0;
    fastmq_status status = FASTMQ_OK;
    while (status == FASTMQ_OK && kept < 10000) {
        snprintf(subject, sizeof subject, "many.%u", kept);
        status = publish_number(client, subject, kept);
        kept += status == FASTMQ_OK;
    }
    CHECK_STATUS(status, FASTMQ_NO_SPACE, "memory_max bounds the subjects");
    CHECK_STATUS(publish_number(client, "many.0", 7), FASTMQ_OK, "those that are there go on");
    CHECK_NUMBER(take_all(queue), kept, "and all of them are received");
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    the_newest_in_order();
    beside_others();
    refused();
    in_a_loop();
    under_load();
    memory_max();
    return check_end();
}
