/* Presence: who subscribes to a pattern and who leaves, told on reserved subjects.
 *
 * Decided here: the subject has the pattern with its wildcards in parentheses, the payload has it
 * as given, the key is the group, a header has the subscription's id. Nobody waits for a listener.
 * Only the library publishes there.
 */
/* valgrind */
#include "steps.h"

static fastmq_subscription *listen(fastmq_client *client, const char *pattern, int late)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.flags = late ? FASTMQ_SUBSCRIBE_REPLAY_LAST : 0;
    return subscribe_with(client, pattern, &options);
}

/* The id that an event has; 0: none. */
static uint32_t id_of(const fastmq_message *m)
{
    fastmq_bytes value;
    char digits[16] = {0};
    if (fastmq_headers_get(m->headers, text(FASTMQ_HEADER_SUBSCRIPTION), &value) != FASTMQ_OK
        || value.size >= sizeof digits) {
        return 0;
    }
    memcpy(digits, value.data, value.size);
    return (uint32_t)strtoul(digits, NULL, 10);
}

static int says(const fastmq_message *m, const char *subject, const char *pattern,
                const char *group, uint32_t id)
{
    return same(m->subject, subject) && same(m->payload, pattern) && same(m->key, group)
        && id_of(m) == id && m->lost_before == 0;
}

static void in_order(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *listener = listen(client, "$SYS.>", 0);
    fastmq_subscription *users = listen(client, ">", 0);
    uint32_t users_id = fastmq_subscription_id(users);
    fastmq_subscription *one = listen(client, "room.1", 0);
    uint32_t one_id = fastmq_subscription_id(one);
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = queue};
    options.group = text("g");
    fastmq_subscription *two = subscribe_with(client, "room.*", &options);
    uint32_t two_id = fastmq_subscription_id(two);
    fastmq_unsubscribe(one);
    fastmq_queue_close(queue);
    size_t count = 0;
    const fastmq_message *m = NULL;
    fastmq_batch *batch = take(fastmq_subscription_queue(listener), 0, &m, &count);
    NEED(count == 5);
    CHECK(says(&m[0], FASTMQ_SUBJECT_JOINED ".(>)", ">", "", users_id), "a wildcard is quoted");
    CHECK(says(&m[1], "$SYS.JOINED.room.1", "room.1", "", one_id), "who joins is told");
    CHECK(says(&m[2], "$SYS.JOINED.room.(*)", "room.*", "g", two_id), "with the group");
    CHECK(says(&m[3], FASTMQ_SUBJECT_LEFT ".room.1", "room.1", "", one_id), "who leaves, too");
    CHECK(says(&m[4], "$SYS.LEFT.room.(*)", "room.*", "g", two_id), "and with its queue");
    fastmq_batch_free(batch);
    CHECK_NUMBER(take_all(fastmq_subscription_queue(users)), 0,
                 "a wildcard in the first token is for the subjects of users");
    fastmq_unsubscribe(two);
    fastmq_unsubscribe(users);
    fastmq_unsubscribe(listener);
    fastmq_close(client);
}

static void late(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *one = listen(client, "room.1", 0);
    fastmq_subscription *hall = listen(client, "hall", 0);
    fastmq_subscription *listener = listen(client, "$SYS.*.room.>", 1);
    fastmq_subscription *deaf = listen(client, "$SYS.*.room.>", 0);
    size_t count = 0;
    const fastmq_message *m = NULL;
    uint32_t one_id = fastmq_subscription_id(one);
    fastmq_unsubscribe(one);
    fastmq_batch *batch = take(fastmq_subscription_queue(listener), 0, &m, &count);
    CHECK(count == 2 && says(&m[0], "$SYS.JOINED.room.1", "room.1", "", one_id)
              && says(&m[1], "$SYS.LEFT.room.1", "room.1", "", one_id),
          "a late listener hears first who is there");
    fastmq_batch_free(batch);
    CHECK_NUMBER(take_all(fastmq_subscription_queue(deaf)), 1, "if it asks for it");
    fastmq_unsubscribe(hall);
    fastmq_unsubscribe(deaf);
    fastmq_unsubscribe(listener);
    fastmq_close(client);
}

static void full(void)
{
    fastmq_client *client = open_small_client(1);
    fastmq_subscription *listener = listen(client, "$SYS.>", 0);
    enum { ROUNDS = 100 };
    for (int round = 0; round < ROUNDS; round++) {
        fastmq_unsubscribe(listen(client, "room", 0));
    }
    size_t heard = take_all(fastmq_subscription_queue(listener));
    fastmq_subscription *last = listen(client, "last", 0);
    size_t count = 0;
    const fastmq_message *m = NULL;
    fastmq_batch *batch = take(fastmq_subscription_queue(listener), 0, &m, &count);
    CHECK(heard < 2 * ROUNDS, "nobody waits for a listener");
    CHECK_NUMBER(heard + m[0].lost_before, 2 * ROUNDS, "what it misses it is told");
    fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
    NEED(fastmq_subscription_statistics_read(listener, &figures) == FASTMQ_OK);
    CHECK_NUMBER(figures.dropped, m[0].lost_before, "and it is counted");
    fastmq_batch_free(batch);
    fastmq_unsubscribe(last);
    fastmq_unsubscribe(listener);
    fastmq_close(client);
}

struct ended {
    fastmq_subscription *last;
    uint32_t heard;
};

static void on_event(const fastmq_message *message, void *context)
{
    struct ended *ended = context;
    (void)message;
    ended->heard++;
    fastmq_unsubscribe(ended->last);
    ended->last = NULL;
}

static void callbacks(void)
{
    fastmq_client *client = open_client();
    struct ended ended = {NULL, 0};
    fastmq_subscription *listener = subscribe_call(client, "$SYS.>", FASTMQ_DELIVERY_DISPATCH,
                                                   on_event, &ended);
    ended.last = listen(client, "room", 0);
    uint32_t ready = 0;
    while (ended.heard < 2 && fastmq_dispatch(client, 0, 0, &ready) == FASTMQ_OK && ready != 0) {
    }
    CHECK_NUMBER(ended.heard, 2, "a callback hears of those that it ends");
    fastmq_unsubscribe(listener);
    fastmq_close(client);
}

static void refused(void)
{
    fastmq_client *client = open_client();
    fastmq_publisher *publisher = NULL;
    fastmq_requester *requester = NULL;
    fastmq_batch *batch = NULL;
    fastmq_subscription *listener = NULL;
    fastmq_outgoing message = outgoing("$SYS.mine", text(""));
    const fastmq_bytes subject = text("$SYS.JOINED.room"), pattern = text("$SYS.>");
    CHECK_STATUS(fastmq_publish(client, subject, text("")), FASTMQ_DENIED, "no publish");
    CHECK_STATUS(fastmq_publish_message(client, &message), FASTMQ_DENIED, "of any kind");
    CHECK_STATUS(fastmq_publisher_open(client, subject, &publisher), FASTMQ_DENIED,
                 "no publisher");
    fastmq_requester_options asking = {.struct_size = sizeof asking, .subject = subject};
    CHECK_STATUS(fastmq_requester_open(client, &asking, &requester), FASTMQ_DENIED,
                 "no requester");
    CHECK_STATUS(fastmq_request(client, &message, 0, &batch), FASTMQ_DENIED, "no request");
    CHECK_STATUS(fastmq_request_many(client, &message, 2, 0, &batch), FASTMQ_DENIED,
                 "and no request for many answers");
    fastmq_subscribe_options options = {.struct_size = sizeof options, .group = text("g")};
    CHECK_STATUS(fastmq_subscribe(client, pattern, &options, &listener), FASTMQ_INVALID,
                 "each listener is told of all: there is no group");
    options.group = text("");
    options.policy = FASTMQ_POLICY_LATEST;
    CHECK_STATUS(fastmq_subscribe(client, pattern, &options, &listener), FASTMQ_INVALID,
                 "no queue that replaces");
    options.policy = FASTMQ_POLICY_BACKPRESSURE;
    options.delivery = FASTMQ_DELIVERY_INLINE;
    options.on_message = on_event;
    CHECK_STATUS(fastmq_subscribe(client, pattern, &options, &listener), FASTMQ_INVALID,
                 "and no callback inside the calls of others");
    fastmq_close(client);
}

static void *come_and_go(void *context)
{
    fastmq_client *client = context;
    for (uint32_t round = 0; round < 200; round++) {
        fastmq_subscription *one = NULL;
        if (fastmq_subscribe(client, text("room"), NULL, &one) == FASTMQ_OK) {
            fastmq_unsubscribe(one);
        }
    }
    return NULL;
}

static void threads(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *listener = listen(client, "$SYS.>", 0);
    pthread_t one = start_thread(come_and_go, client), two = start_thread(come_and_go, client);
    uint32_t there[2] = {0, 0};
    int is_wrong = 0, heard = 0;
    while (heard < 800) {
        fastmq_batch *batch = NULL;
        size_t count = 0;
        NEED(fastmq_receive(fastmq_subscription_queue(listener), 0, PATIENCE, &batch)
             == FASTMQ_OK);
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++, heard++) {
            uint32_t id = id_of(&m[i]);
            int has_joined = same(m[i].subject, "$SYS.JOINED.room");
            uint32_t *place = &there[there[0] != (has_joined ? 0 : id)];
            is_wrong += *place != (has_joined ? 0 : id);
            *place = has_joined ? id : 0;
        }
        fastmq_batch_free(batch);
    }
    NEED(pthread_join(one, NULL) == 0 && pthread_join(two, NULL) == 0);
    CHECK(!is_wrong && there[0] + there[1] == 0, "whoever leaves has joined before, on any thread");
    fastmq_unsubscribe(listener);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    in_order();
    late();
    full();
    callbacks();
    refused();
    threads();
    return check_end();
}
