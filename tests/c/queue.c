/* Queues: what each policy does when the queue is full, and that every loss is counted.
 *
 * Decided here: `lost_before` of a message counts exactly the messages missing between it and the
 * message received before it, for both dropping policies. A time-out of 0 means "do not wait":
 * AGAIN where there is no room or no message. A payload wider than the queue goes through, by a
 * block; headers wider than it are TOO_LARGE. Neither is AGAIN for ever. What has been received
 * stays readable until its batch is freed, even if the queue is closed meanwhile; a detached copy
 * outlives the client.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

/* Publishes wide messages from `number` on until one is refused; returns how many went in. */
static uint32_t fill(fastmq_client *client, const char *subject, uint32_t number)
{
    uint32_t count = 0;
    while (count < 10000 && publish_wide(client, subject, number + count) == FASTMQ_OK) {
        count++;
    }
    NEED(count >= 1 && count < 10000);
    return count;
}

/* What a reader of numbered messages saw. */
struct tally {
    uint32_t received, lost, next; /* next: the number that is expected now */
    uint32_t wrong;                /* messages whose number did not follow from lost_before */
};

static void read_numbers(fastmq_queue *queue, struct tally *tally)
{
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 7, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            tally->wrong += number_of(&m[i]) != tally->next + m[i].lost_before;
            tally->next = number_of(&m[i]) + 1;
            tally->received++;
            tally->lost += m[i].lost_before;
        }
        fastmq_batch_free(batch);
    }
}

static void backpressure_all_or_nothing(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *small = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    fastmq_queue *large = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 16 * SMALL_CAPACITY);
    fastmq_queue *dropping = open_queue(client, FASTMQ_POLICY_DROP_OLDEST, SMALL_CAPACITY);
    fastmq_subscription *a = subscribe_on(client, "full", large, 1);
    fastmq_subscription *b = subscribe_on(client, "full", small, 2);
    fastmq_subscription *c = subscribe_on(client, "full", dropping, 3);
    uint32_t accepted = fill(client, "full", 0);
    CHECK_STATUS(publish_wide(client, "full", accepted), FASTMQ_AGAIN,
                 "a full backpressure queue answers AGAIN");
    CHECK(accepted * 200 <= SMALL_CAPACITY, "its capacity is a bound in bytes");
    CHECK_NUMBER(queue_figures(small).pending, accepted, "the statistics say what is pending");
    struct tally in_small = {0}, in_large = {0}, in_dropping = {0};
    read_numbers(small, &in_small);
    read_numbers(large, &in_large);
    read_numbers(dropping, &in_dropping);
    CHECK_NUMBER(in_small.received, accepted, "what was accepted is in the small queue");
    CHECK_NUMBER(in_large.received, accepted, "the large one has the same messages, not one more");
    CHECK_NUMBER(in_dropping.next, accepted, "a dropping queue beside them has not seen a refusal");
    CHECK_NUMBER(in_small.wrong + in_large.wrong + in_small.lost + in_large.lost, 0,
                 "in order and without loss");
    CHECK_STATUS(publish_wide(client, "full", accepted), FASTMQ_OK, "then there is room again");
    CHECK_NUMBER(queue_figures(small).dropped + queue_figures(large).dropped, 0,
                 "a refusal is no drop");
    CHECK(client_figures(client).refused >= 2, "it is counted as refused");
    fastmq_unsubscribe(a);
    fastmq_unsubscribe(b);
    fastmq_unsubscribe(c);
    fastmq_queue_close(small);
    fastmq_queue_close(large);
    fastmq_queue_close(dropping);
    fastmq_close(client);
}

static void only_the_caller_could_drain(void)
{
    fastmq_client *client = open_small_client(0);
    fastmq_subscription *subscription = subscribe(client, "self");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_publisher *publisher = open_publisher(client, "self");
    uint8_t payload[200] = {0};
    NEED(publish_wide(client, "self", 0) == FASTMQ_OK && take_all(queue) == 1);
    uint32_t accepted = fill(client, "self", 0);
    fastmq_outgoing message = outgoing("self", bytes(payload, sizeof payload));
    CHECK_STATUS(fastmq_publish_wait(client, &message, 0), FASTMQ_AGAIN,
                 "publish_wait that may not wait answers AGAIN");
    CHECK_STATUS(fastmq_publish_wait(client, &message, 20 * MILLISECOND), FASTMQ_TIMEOUT,
                 "publish_wait with only this thread to drain ends with TIMEOUT");
    CHECK(strstr(fastmq_last_error(), "this thread") != NULL,
          "and its sentence says that this thread was the last reader");
    fastmq_status status = FASTMQ_OK;
    for (int i = 0; i < 1000 && status == FASTMQ_OK; i++) {
        status = fastmq_publisher_publish(publisher, message.payload);
    }
    CHECK_STATUS(status, FASTMQ_AGAIN, "a handle's own lane is bounded, too");
    CHECK_STATUS(fastmq_publisher_publish_wait(publisher, message.payload, 20 * MILLISECOND),
                 FASTMQ_TIMEOUT, "publish_wait by handle ends with TIMEOUT");
    CHECK(take_all(queue) >= accepted, "nothing that was accepted is lost");
    CHECK_STATUS(fastmq_publish_wait(client, &message, SECOND), FASTMQ_OK,
                 "with room it does not wait");
    fastmq_bytes many[1000];
    for (size_t i = 0; i < 1000; i++) {
        many[i] = message.payload;
    }
    take_all(queue);
    size_t some = 0;
    CHECK_STATUS(fastmq_publisher_publish_batch(publisher, many, 1000, &some), FASTMQ_AGAIN,
                 "a batch that does not fit as a whole answers AGAIN");
    CHECK(some >= 1 && some < 1000, "the first of it are accepted");
    CHECK_NUMBER(take_all(queue), some, "exactly those are published");
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

static void dropping(fastmq_policy policy, const char *name)
{
    enum { SENT = 1000 };
    char line[100];
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, policy, SMALL_CAPACITY);
    fastmq_subscription *subscription = subscribe_on(client, "drop", queue, 0);
    struct tally tally = {0};
    uint32_t refused = 0;
    for (uint32_t i = 0; i < SENT; i++) {
        refused += publish_wide(client, "drop", i) != FASTMQ_OK;
    }
    snprintf(line, sizeof line, "%s never refuses a message", name);
    CHECK_NUMBER(refused, 0, line);
    uint64_t pending = queue_figures(queue).pending, dropped = queue_figures(queue).dropped;
    snprintf(line, sizeof line, "%s counts each message once: pending or dropped", name);
    CHECK_NUMBER(pending + dropped, SENT, line);
    read_numbers(queue, &tally);
    snprintf(line, sizeof line, "%s keeps the %s messages", name,
             policy == FASTMQ_POLICY_DROP_OLDEST ? "last" : "first");
    uint32_t next = policy == FASTMQ_POLICY_DROP_OLDEST ? SENT : tally.received;
    CHECK(tally.received >= 1 && tally.next == next, line);
    /* One more, now that there is room: it reports what was lost after the last one received. */
    NEED(publish_wide(client, "drop", SENT) == FASTMQ_OK);
    read_numbers(queue, &tally);
    snprintf(line, sizeof line, "%s: received and lost_before sum up to all that was sent", name);
    CHECK_NUMBER(tally.received + tally.lost, SENT + 1, line);
    snprintf(line, sizeof line, "%s: each lost_before is the gap in front of its message", name);
    CHECK_NUMBER(tally.wrong, 0, line);
    snprintf(line, sizeof line, "%s: the queue's count of drops is the same", name);
    CHECK_NUMBER(queue_figures(queue).dropped, tally.lost, line);
    snprintf(line, sizeof line, "%s: and so is the client's", name);
    CHECK_NUMBER(client_figures(client).dropped, tally.lost, line);
    fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
    NEED(fastmq_subscription_statistics_read(subscription, &figures) == FASTMQ_OK);
    snprintf(line, sizeof line, "%s: and so is the subscription's", name);
    CHECK_NUMBER(figures.dropped, tally.lost, line);
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

/* An evicting policy may not pull away what a reader holds in place. */
static void dropping_beside_an_open_batch(void)
{
    enum { SENT = 400 };
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_DROP_OLDEST, SMALL_CAPACITY);
    fastmq_subscription *subscription = subscribe_on(client, "held", queue, 0);
    for (uint32_t i = 0; i < 10; i++) {
        NEED(publish_wide(client, "held", i) == FASTMQ_OK);
    }
    const fastmq_message *m = NULL;
    size_t count = 0;
    fastmq_batch *batch = take(queue, 4, &m, &count);
    uint32_t held = (uint32_t)count, wrong = 0;
    for (uint32_t i = 10; i < SENT; i++) {
        NEED(publish_wide(client, "held", i) == FASTMQ_OK);
    }
    for (uint32_t i = 0; i < held; i++) {
        wrong += number_of(&m[i]) != i;
    }
    CHECK_NUMBER(wrong, 0, "messages of an open batch stay while others are dropped");
    fastmq_batch_free(batch);
    struct tally tally = {.received = held, .next = held};
    read_numbers(queue, &tally);
    NEED(publish_wide(client, "held", SENT) == FASTMQ_OK);
    read_numbers(queue, &tally);
    CHECK_NUMBER(tally.received + tally.lost, SENT + 1, "and the counts still sum up");
    CHECK_NUMBER(tally.wrong, 0, "with each gap in front of its message");
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

static void messages_wider_than_the_queue(void)
{
    static const size_t sizes[] = {1300, 1900, 2048, 3000, 4096, 8192, 100000};
    static const uint8_t block[100000];
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    fastmq_subscription *subscription = subscribe_on(client, "wide", queue, 0);
    fastmq_subscription *second = subscribe_on(client, "wide", queue, 0);
    fastmq_publisher *publisher = open_publisher(client, "wide");
    int wrong = 0;
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            const fastmq_message *m = NULL;
            size_t count = 0;
            wrong += fastmq_publish(client, text("wide"), bytes(block, sizes[i])) != FASTMQ_OK;
            wrong += take_all(queue) != 2;
            wrong += fastmq_publisher_publish(publisher, bytes(block, sizes[i])) != FASTMQ_OK;
            fastmq_batch *batch = take(queue, 2, &m, &count);
            wrong += count != 2 || m[0].payload.size != sizes[i] || m[1].payload.size != sizes[i];
            fastmq_batch_free(batch);
        }
    }
    CHECK_NUMBER(wrong, 0, "a payload wider than an empty queue goes through, as often as asked");

    fastmq_outgoing message = outgoing("wide", text("small"));
    fastmq_headers *headers = NULL;
    NEED(fastmq_headers_open(&headers) == FASTMQ_OK);
    NEED(fastmq_headers_add(headers, text("name"), bytes(block, 5000)) == FASTMQ_OK);
    message.headers = headers;
    CHECK_STATUS(fastmq_publish_message(client, &message), FASTMQ_TOO_LARGE,
                 "headers wider than an empty queue are TOO_LARGE, not AGAIN");
    CHECK_NUMBER(take_all(queue), 0, "and nothing was sent");
    fastmq_headers_close(headers);
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(second);
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

static void batches_outlive(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "outlive");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    for (uint32_t i = 0; i < 3; i++) {
        NEED(publish_number(client, "outlive", i) == FASTMQ_OK);
    }
    fastmq_batch *batch = NULL, *copy = NULL, *held = NULL;
    NEED(fastmq_receive(queue, 1, 0, &batch) == FASTMQ_OK);
    CHECK_STATUS(fastmq_batch_detach(batch, &copy), FASTMQ_OK, "a batch is detached");
    size_t count = 0;
    CHECK(fastmq_batch_messages(batch, &count) == NULL && count == 0, "the original is closed");
    CHECK_STATUS(fastmq_receive(queue, 1, 0, &held), FASTMQ_OK,
                 "and the queue may open another batch");
    const fastmq_message *in_place = fastmq_batch_messages(held, &count);
    NEED(in_place != NULL && count == 1);
    fastmq_unsubscribe(subscription);
    CHECK(number_of(in_place) == 1 && same(in_place->subject, "outlive"),
          "what was received in place stays readable when its queue is closed");
    fastmq_close(client);
    CHECK(number_of(in_place) == 1, "and when the client is closed, until the batch is freed");
    fastmq_batch_free(held);
    const fastmq_message *copied = fastmq_batch_messages(copy, &count);
    CHECK(copied != NULL && count == 1 && number_of(copied) == 0
              && same(copied->subject, "outlive"),
          "a detached copy outlives the client");
    fastmq_batch_free(copy);
}

static void shared_by_subscriptions(void)
{
    enum { SUBSCRIPTIONS = 100 };
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *all[SUBSCRIPTIONS];
    char pattern[32];
    for (uint32_t i = 0; i < SUBSCRIPTIONS; i++) {
        snprintf(pattern, sizeof pattern, "room.%u", (unsigned)i);
        all[i] = subscribe_on(client, pattern, queue, i);
    }
    CHECK(fastmq_subscription_queue(all[7]) == queue,
          "a subscription names the queue it was given");
    for (uint32_t i = 0; i < SUBSCRIPTIONS; i++) {
        snprintf(pattern, sizeof pattern, "room.%u", (unsigned)i);
        NEED(publish_number(client, pattern, i) == FASTMQ_OK);
    }
    fastmq_unsubscribe(all[0]);
    uint32_t wrong = 0, received = 0;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 1000, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            wrong += m[i].tag != number_of(&m[i]);
            received += number_of(&m[i]) != 0; /* the one of a closed subscription may be gone */
        }
        fastmq_batch_free(batch);
    }
    CHECK_NUMBER(received, SUBSCRIPTIONS - 1, "one queue serves many subscriptions");
    CHECK_NUMBER(wrong, 0, "the tag tells which one a message is for");
    for (uint32_t i = 1; i < SUBSCRIPTIONS; i++) {
        fastmq_unsubscribe(all[i]);
    }
    CHECK_NUMBER(queue_figures(queue).pending, 0, "a given queue lives on after its subscriptions");
    fastmq_queue_close(queue);
    fastmq_close(client);
}

static void group_shares(void)
{
    enum { MEMBERS = 3, SENT = 900 };
    fastmq_client *client = open_client();
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_subscription *members[MEMBERS], *outside = subscribe(client, "work.*");
    static uint8_t seen[SENT];
    options.group = text("workers");
    for (size_t i = 0; i < MEMBERS; i++) {
        members[i] = subscribe_with(client, "work.*", &options);
    }
    for (uint32_t i = 0; i < SENT; i++) {
        NEED(publish_number(client, "work.item", i) == FASTMQ_OK);
    }
    size_t wrong = 0, idle = 0;
    for (size_t i = 0; i < MEMBERS; i++) {
        fastmq_batch *batch = NULL;
        size_t count = 0, total = 0;
        while (fastmq_receive(fastmq_subscription_queue(members[i]), 64, 0, &batch) == FASTMQ_OK) {
            const fastmq_message *m = fastmq_batch_messages(batch, &count);
            for (size_t j = 0; j < count; j++) {
                wrong += number_of(&m[j]) >= SENT || seen[number_of(&m[j])]++ != 0;
            }
            total += count;
            fastmq_batch_free(batch);
        }
        idle += total == 0;
    }
    for (size_t i = 0; i < SENT; i++) {
        wrong += seen[i] != 1;
    }
    CHECK_NUMBER(wrong, 0, "a group gives each message to one member, exactly once");
    CHECK_NUMBER(idle, 0, "and leaves no member idle");
    CHECK_NUMBER(take_all(fastmq_subscription_queue(outside)), SENT,
                 "a subscription outside the group gets all of them");
    for (size_t i = 0; i < MEMBERS; i++) {
        fastmq_unsubscribe(members[i]);
    }
    fastmq_unsubscribe(outside);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    backpressure_all_or_nothing();
    only_the_caller_could_drain();
    dropping(FASTMQ_POLICY_DROP_OLDEST, "drop_oldest");
    dropping(FASTMQ_POLICY_DROP_NEWEST, "drop_newest");
    dropping_beside_an_open_batch();
    messages_wider_than_the_queue();
    batches_outlive();
    shared_by_subscriptions();
    group_shares();
    return check_end();
}
