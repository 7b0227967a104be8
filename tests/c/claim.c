/* Claims: a payload that is written where its reader reads it, committed or abandoned.
 *
 * Decided here: a commit is a publish of that moment. A publisher with an open claim does nothing
 * else; a commit that is refused leaves the claim open; closing the publisher abandons it.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

/* Messages after which a publisher has lanes of its own. */
enum { HOT = 40, BLOCK_SIZE = 100000 };

/* Claims `size` bytes and fills them with `byte`. */
static fastmq_status claim_filled(fastmq_publisher *publisher, size_t size, int byte)
{
    uint8_t *room = NULL;
    fastmq_status status = fastmq_publisher_claim(publisher, size, &room);
    if (status == FASTMQ_OK) {
        NEED(room != NULL && ((uintptr_t)room & 7) == 0);
        if (size > 0) {
            memset(room, byte, size);
        }
    }
    return status;
}

static fastmq_status commit_filled(fastmq_publisher *publisher, size_t size, int byte)
{
    fastmq_status status = claim_filled(publisher, size, byte);
    return status == FASTMQ_OK ? fastmq_publisher_commit(publisher, size) : status;
}

/* Receives one message, which must be there, and says whether it is `size` times `byte`. */
static int next_is(fastmq_queue *queue, size_t size, int byte)
{
    size_t count = 0;
    const fastmq_message *messages = NULL;
    fastmq_batch *batch = take(queue, 1, &messages, &count);
    int is = messages[0].payload.size == size;
    for (size_t at = 0; is && at < size; at++) {
        is = messages[0].payload.data[at] == (uint8_t)byte;
    }
    fastmq_batch_free(batch);
    return is;
}

static void heat(fastmq_publisher *publisher, fastmq_queue *queue)
{
    for (int round = 0; round < HOT; round++) {
        NEED(fastmq_publisher_publish(publisher, text("warm")) == FASTMQ_OK);
        take_all(queue);
    }
}

static void sizes(fastmq_client *client)
{
    static const size_t sizes[] = {0, 1, 100, 256, 257, 1024, 8192, 8193, BLOCK_SIZE};
    fastmq_subscription *subscription = subscribe(client, "claim.size");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_publisher *publisher = open_publisher(client, "claim.size");
    int whole = 0, shorter = 0, empty = 0;
    for (int round = 0; round < 4; round++) {
        for (size_t at = 0; at < sizeof sizes / sizeof *sizes; at++) {
            size_t size = sizes[at];
            NEED(commit_filled(publisher, size, 'w') == FASTMQ_OK);
            whole += next_is(queue, size, 'w');
            NEED(claim_filled(publisher, size, 's') == FASTMQ_OK);
            NEED(fastmq_publisher_commit(publisher, size / 2) == FASTMQ_OK);
            shorter += next_is(queue, size / 2, 's');
            NEED(claim_filled(publisher, size, 'e') == FASTMQ_OK);
            NEED(fastmq_publisher_commit(publisher, 0) == FASTMQ_OK);
            empty += next_is(queue, 0, 0);
        }
    }
    int all = 4 * (int)(sizeof sizes / sizeof *sizes);
    CHECK_NUMBER(whole, all, "what is committed arrives, from 0 bytes to blocks");
    CHECK_NUMBER(shorter, all, "less may be committed than was claimed");
    CHECK_NUMBER(empty, all, "or nothing");
    size_t count = 0;
    const fastmq_message *m = NULL;
    NEED(commit_filled(publisher, 10, 'n') == FASTMQ_OK);
    NEED(fastmq_publisher_publish(publisher, text("p")) == FASTMQ_OK);
    fastmq_batch *batch = take(queue, 2, &m, &count);
    CHECK(count == 2 && same(m[0].subject, "claim.size") && m[0].key.data == NULL
              && m[0].headers.data == NULL && m[1].sequence == m[0].sequence + 1,
          "a claim has the publisher's subject and sequence, and a payload");
    fastmq_batch_free(batch);
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(subscription);
}

/* What a call out of turn is answered, with a claim of this size. */
static void turns(fastmq_client *client, size_t size, const char *name)
{
    char line[160];
    uint8_t *room = NULL, *second = (uint8_t *)line;
    fastmq_subscription *subscription = subscribe(client, "claim.turn");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_publisher *publisher = open_publisher(client, "claim.turn");
    heat(publisher, queue);
    fastmq_outgoing message = outgoing("", text("x"));
    fastmq_bytes payload = text("x");
    size_t accepted = 9;
#define SAYS(call, status, what)                              \
    snprintf(line, sizeof line, "%s: %s", name, what);        \
    CHECK_STATUS(call, status, line)
    SAYS(fastmq_publisher_commit(publisher, 0), FASTMQ_MISUSE, "a commit without a claim");
    fastmq_publisher_abandon(publisher);
    NEED(fastmq_publisher_claim(publisher, size, &room) == FASTMQ_OK);
    memset(room, 1, size);
    SAYS(fastmq_publisher_claim(publisher, 1, &second), FASTMQ_MISUSE, "a second claim");
    CHECK(second == NULL, "and its out parameter is NULL");
    SAYS(fastmq_publisher_publish(publisher, payload), FASTMQ_MISUSE, "publish while claimed");
    SAYS(fastmq_publisher_publish_message(publisher, &message), FASTMQ_MISUSE,
         "publish_message while claimed");
    SAYS(fastmq_publisher_publish_batch(publisher, &payload, 1, &accepted), FASTMQ_MISUSE,
         "publish_batch while claimed");
    CHECK_NUMBER(accepted, 0, "which accepts nothing");
    SAYS(fastmq_publisher_publish_wait(publisher, payload, FASTMQ_FOREVER), FASTMQ_MISUSE,
         "publish_wait while claimed");
    SAYS(fastmq_publisher_commit(publisher, size + 1), FASTMQ_INVALID,
         "more than was claimed");
    SAYS(fastmq_publisher_commit(publisher, size), FASTMQ_OK, "then what was claimed");
    SAYS(fastmq_publisher_commit(publisher, size), FASTMQ_MISUSE, "a second commit");
    CHECK(next_is(queue, size, 1) && take_all(queue) == 0, "one message has arrived");
    SAYS(claim_filled(publisher, size, 2), FASTMQ_OK, "a claim to abandon");
    fastmq_publisher_abandon(publisher);
    fastmq_publisher_abandon(publisher);
    SAYS(fastmq_publisher_commit(publisher, 0), FASTMQ_MISUSE, "a commit of what is abandoned");
    SAYS(commit_filled(publisher, size, 3), FASTMQ_OK, "the next claim");
    CHECK(next_is(queue, size, 3) && take_all(queue) == 0, "is the next message");
    SAYS(claim_filled(publisher, size, 4), FASTMQ_OK, "a claim that is left open");
    fastmq_publisher_close(publisher);
    SAYS(fastmq_publisher_commit(publisher, size), FASTMQ_MISUSE, "a commit after the close");
    SAYS(fastmq_publisher_claim(publisher, 1, &room), FASTMQ_MISUSE, "a claim after the close");
    fastmq_publisher_abandon(publisher);
    CHECK_NUMBER(take_all(queue), 0, "closing a publisher abandons its claim");
#undef SAYS
    fastmq_unsubscribe(subscription);
}

static void arguments(fastmq_client *client)
{
    uint8_t byte = 0, *room = &byte;
    fastmq_publisher *publisher = open_publisher(client, "claim.arguments");
    CHECK_STATUS(fastmq_publisher_claim(publisher, 1, NULL), FASTMQ_INVALID, "out is NULL");
    CHECK_STATUS(fastmq_publisher_claim(NULL, 1, &room), FASTMQ_INVALID, "publisher is NULL");
    CHECK(room == NULL, "out is set to NULL first");
    CHECK_STATUS(fastmq_publisher_commit(NULL, 0), FASTMQ_INVALID, "commit on NULL");
    fastmq_publisher_abandon(NULL);
    CHECK_STATUS(fastmq_publisher_claim(publisher, 2 << 20, &room), FASTMQ_TOO_LARGE,
                 "more than payload_max");
    CHECK_STATUS(fastmq_publisher_claim(publisher, SIZE_MAX, &room), FASTMQ_TOO_LARGE,
                 "more than there can be");
    CHECK(room == NULL, "and nothing is claimed");
    CHECK_STATUS(commit_filled(publisher, 1000, 1), FASTMQ_OK, "a claim that nobody wants");
    fastmq_publisher_close(publisher);
}

static void full_queues(void)
{
    fastmq_client *client = open_small_client(0);
    fastmq_subscription *subscription = subscribe(client, "claim.full");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_publisher *publisher = open_publisher(client, "claim.full");
    heat(publisher, queue);
    size_t sent = 0;
    while (commit_filled(publisher, 200, 'f') == FASTMQ_OK) {
        sent++;
    }
    CHECK(sent > 5, "a queue takes what it has room for");
    CHECK_STATUS(claim_filled(publisher, 200, 'f'), FASTMQ_AGAIN, "then a claim is AGAIN");
    CHECK_NUMBER(take_all(queue), sent, "all that was committed is there");
    CHECK_STATUS(claim_filled(publisher, 200, 'r'), FASTMQ_OK, "there is room again");
    while (publish_wide(client, "claim.full", 1) == FASTMQ_OK) {
        continue;
    }
    CHECK_STATUS(fastmq_publisher_commit(publisher, 200), FASTMQ_OK,
                 "the room of a claim is nobody else's");
    take_all(queue);

    /* A queue that comes in between, and has no room. */
    fastmq_subscription *other = subscribe(client, "claim.other");
    fastmq_queue *full = fastmq_subscription_queue(other);
    while (publish_wide(client, "claim.other", 1) == FASTMQ_OK) {
        continue;
    }
    NEED(claim_filled(publisher, 200, 'k') == FASTMQ_OK);
    fastmq_subscription *second = subscribe_on(client, "claim.full", full, 0);
    CHECK_STATUS(fastmq_publisher_commit(publisher, 200), FASTMQ_AGAIN,
                 "a full queue that came in between refuses the commit");
    CHECK_NUMBER(take_all(queue), 0, "for all");
    take_all(full);
    CHECK_STATUS(fastmq_publisher_commit(publisher, 200), FASTMQ_OK, "it can be committed again");
    CHECK(next_is(queue, 200, 'k') && next_is(full, 200, 'k'), "and both have it");
    fastmq_unsubscribe(second);
    fastmq_unsubscribe(other);
    fastmq_unsubscribe(subscription);
    fastmq_publisher_close(publisher);
    fastmq_close(client);
}

static void dropping(fastmq_client *client, fastmq_policy policy, const char *name)
{
    char line[120];
    fastmq_queue *queue = open_queue(client, policy, SMALL_CAPACITY);
    fastmq_subscription *subscription = subscribe_on(client, "claim.drop", queue, 0);
    fastmq_publisher *publisher = open_publisher(client, "claim.drop");
    heat(publisher, queue);
    while (queue_figures(queue).dropped == 0) {
        NEED(commit_filled(publisher, 200, 'd') == FASTMQ_OK);
    }
    uint64_t dropped = queue_figures(queue).dropped;
    for (int round = 0; round < 100; round++) {
        NEED(claim_filled(publisher, 200, 'a') == FASTMQ_OK);
        fastmq_publisher_abandon(publisher);
    }
    snprintf(line, sizeof line, "%s: an abandoned claim drops nothing", name);
    CHECK_NUMBER(queue_figures(queue).dropped, dropped, line);
    take_all(queue);
    for (int round = 0; round < 100; round++) {
        NEED(commit_filled(publisher, 200, 'd') == FASTMQ_OK);
    }
    size_t seen = take_all(queue);
    snprintf(line, sizeof line, "%s: what is committed is there or dropped and counted", name);
    CHECK_NUMBER(seen + queue_figures(queue).dropped - dropped, 100, line);
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
}

/* Whoever leaves between claim and commit is one target less. */
static void leaving(fastmq_client *client, size_t size, int others, const char *name)
{
    char line[120];
    fastmq_subscription *staying = others ? subscribe(client, "claim.leave") : NULL;
    fastmq_publisher *publisher = open_publisher(client, "claim.leave");
    for (int is_closed = 0; is_closed < 2; is_closed++) {
        fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
        fastmq_subscription *subscription = subscribe_on(client, "claim.leave", queue, 0);
        heat(publisher, queue);
        if (others) {
            take_all(fastmq_subscription_queue(staying));
        }
        uint8_t *room = NULL;
        NEED(fastmq_publisher_claim(publisher, size, &room) == FASTMQ_OK);
        if (is_closed) {
            fastmq_queue_close(queue);
        }
        fastmq_unsubscribe(subscription);
        memset(room, 'l', size);
        snprintf(line, sizeof line, "%s: a queue %s in between", name,
                 is_closed ? "closed" : "without its subscription");
        CHECK_STATUS(fastmq_publisher_commit(publisher, size), FASTMQ_OK, line);
        if (!is_closed) {
            CHECK_NUMBER(take_all(queue), 0, "which gets nothing");
            fastmq_queue_close(queue);
        }
        if (others) {
            CHECK(next_is(fastmq_subscription_queue(staying), size, 'l'), "the others have it");
        }
    }
    fastmq_publisher_close(publisher);
    if (others) {
        fastmq_unsubscribe(staying);
    }
}

static void joining(fastmq_client *client)
{
    fastmq_subscription *first = subscribe(client, "claim.join");
    fastmq_publisher *publisher = open_publisher(client, "claim.join");
    heat(publisher, fastmq_subscription_queue(first));
    NEED(claim_filled(publisher, 1000, 'j') == FASTMQ_OK);
    fastmq_subscription *second = subscribe(client, "claim.join");
    CHECK_STATUS(fastmq_publisher_commit(publisher, 1000), FASTMQ_OK, "one came in between");
    CHECK(next_is(fastmq_subscription_queue(first), 1000, 'j')
              && next_is(fastmq_subscription_queue(second), 1000, 'j'), "both have it");
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(first);
    fastmq_unsubscribe(second);
}

struct caller {
    fastmq_publisher *publisher;
    uint32_t calls;
    fastmq_status claim, commit;
};

static void on_message(const fastmq_message *message, void *context)
{
    struct caller *caller = context;
    uint8_t *room = NULL;
    caller->calls += message->payload.size == 500 && message->payload.data[499] == 'c';
    caller->claim = fastmq_publisher_claim(caller->publisher, 1, &room);
    caller->commit = fastmq_publisher_commit(caller->publisher, 1);
    fastmq_publisher_abandon(caller->publisher);
    if (caller->calls == 2) {
        fastmq_publisher_close(caller->publisher);
    }
}

static void callbacks(fastmq_client *client)
{
    struct caller caller = {open_publisher(client, "claim.call"), 0, FASTMQ_OK, FASTMQ_OK};
    fastmq_subscription *subscription =
        subscribe_call(client, "claim.call", FASTMQ_DELIVERY_INLINE, on_message, &caller);
    CHECK_STATUS(commit_filled(caller.publisher, 500, 'c'), FASTMQ_OK, "a callback in a commit");
    CHECK_NUMBER(caller.calls, 1, "sees what was written");
    CHECK(caller.claim == FASTMQ_MISUSE && caller.commit == FASTMQ_MISUSE,
          "and cannot use the publisher");
    CHECK_STATUS(commit_filled(caller.publisher, 500, 'c'), FASTMQ_OK, "it may close it");
    CHECK_STATUS(commit_filled(caller.publisher, 500, 'c'), FASTMQ_MISUSE, "which is closed then");
    fastmq_unsubscribe(subscription);
}

static void ending(size_t size)
{
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "claim.end");
    fastmq_publisher *publisher = open_publisher(client, "claim.end");
    heat(publisher, fastmq_subscription_queue(subscription));
    uint8_t *room = NULL;
    NEED(fastmq_publisher_claim(publisher, size, &room) == FASTMQ_OK);
    fastmq_close(client);
    fastmq_unsubscribe(subscription);
    memset(room, 'x', size);
    CHECK_STATUS(fastmq_publisher_commit(publisher, size), FASTMQ_CLOSED,
                 "a commit after the client was closed");
    fastmq_publisher_abandon(publisher);
    CHECK_STATUS(fastmq_publisher_claim(publisher, size, &room), FASTMQ_CLOSED, "and a claim");
    fastmq_publisher_close(publisher);
}

struct death {
    fastmq_publisher *publisher;
    size_t size;
};

static void *die(void *context)
{
    struct death *death = context;
    NEED(claim_filled(death->publisher, death->size, 'z') == FASTMQ_OK);
    return NULL;
}

static void owner_dies(fastmq_client *client, size_t size)
{
    fastmq_subscription *subscription = subscribe(client, "claim.die");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    struct death death = {open_publisher(client, "claim.die"), size};
    heat(death.publisher, queue);
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, die, &death) == 0);
    NEED(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(publish_number(client, "claim.die", 1), FASTMQ_OK,
                 "a thread that ends with an open claim keeps no writer from going on");
    CHECK_NUMBER(take_all(queue), 1, "nor the reader");
    fastmq_publisher_abandon(death.publisher);
    CHECK_STATUS(commit_filled(death.publisher, size, 'y'), FASTMQ_OK,
                 "another thread may take the publisher over");
    CHECK(next_is(queue, size, 'y'), "and its message is there");
    fastmq_publisher_close(death.publisher);
    fastmq_unsubscribe(subscription);
}

int main(void)
{
    check_begin();
    fastmq_client *client = open_client();
    sizes(client);
    turns(client, 100, "in a lane");
    turns(client, BLOCK_SIZE, "in a block");
    arguments(client);
    full_queues();
    dropping(client, FASTMQ_POLICY_DROP_OLDEST, "drop_oldest");
    dropping(client, FASTMQ_POLICY_DROP_NEWEST, "drop_newest");
    leaving(client, 100, 0, "in a lane");
    leaving(client, BLOCK_SIZE, 0, "in a block");
    leaving(client, 1000, 1, "two queues");
    joining(client);
    callbacks(client);
    owner_dies(client, 100);
    owner_dies(client, BLOCK_SIZE);
    fastmq_close(client);
    ending(100);
    ending(BLOCK_SIZE);
    return check_end();
}
