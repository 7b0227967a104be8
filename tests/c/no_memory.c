/* The k-th request for memory is refused, or all from the k-th on, for every k that there is: each
 * call answers with an error, nothing that was accepted is lost, nothing leaks, and when memory is
 * back everything goes on.
 *
 * Each k in a process of its own, where no table exists yet, then all in one process, which counts
 * what is left. What is not the library's to survive is in docs/reference/limits.md.
 */
/* no asan: malloc is replaced. */
#define _GNU_SOURCE
#include "refusing.h"
#include "steps.h"

#include <sys/wait.h>

/* what a call may answer */

#define ONE_OF(status) (UINT64_C(1) << FASTMQ_##status)
/* A call that was refused memory; UNSUPPORTED is a thread that could not be started. */
#define REFUSED (ONE_OF(NO_MEMORY) | ONE_OF(UNSUPPORTED))

static int wrong_answers;

/* True for OK; counts a status that is not expected. */
static int is_done(fastmq_status status, uint64_t expected, int line)
{
    uint64_t allowed = expected | (atomic_load(&refused) > 0 ? REFUSED : 0);
    if ((allowed & UINT64_C(1) << status) == 0) {
        printf("# line %d: %s: %s; refused %llu of %llu from %llu\n", line,
               fastmq_status_name(status), fastmq_last_error(), atomic_load(&refused),
               atomic_load(&asked), refuse_from);
        wrong_answers++;
    } else if (status != FASTMQ_OK && fastmq_last_error()[0] == '\0') {
        printf("# line %d: no sentence about %s\n", line, fastmq_status_name(status));
        wrong_answers++;
    }
    return status == FASTMQ_OK;
}

#define DONE(call, expected) is_done((call), (expected), __LINE__)
#define OPEN(call) DONE(call, ONE_OF(OK))

/* the scenario */

enum { PLAIN, SHARED, SHARED_TOO, WORKER, WORKER_TOO, INLINE, THREAD, DISPATCH, ASK, ASK_HERE,
       SUBSCRIPTIONS, FAN = SUBSCRIPTIONS, TAGS };
/* As many subscriptions get a message of MIDDLE bytes by a block. */
enum { FANNED = 18, MIDDLE = 300, LARGE = 20000, TOKENS_MAX = 64 };

struct world {
    fastmq_client *client;
    fastmq_queue *queue;
    fastmq_subscription *subscriptions[SUBSCRIPTIONS], *fan[FANNED];
    fastmq_publisher *publisher, *inline_publisher;
    fastmq_requester *requester;
    fastmq_headers *headers;
    /* Messages that were accepted for each subscription, and messages that came. */
    uint64_t expected[TAGS], seen[TAGS];
    atomic_ullong called[SUBSCRIPTIONS];
    struct gate thread_calls;
    /* Requests that were accepted, and answers that came. */
    uint64_t submitted, answered;
    /* Requests that wait for a responder with memory. */
    uint64_t tokens[TOKENS_MAX];
    size_t token_count;
};

static const uint8_t large[LARGE];

static void answer_later(struct world *world, uint64_t token)
{
    NEED(world->token_count < TOKENS_MAX);
    world->tokens[world->token_count++] = token;
}

static void on_inline(const fastmq_message *message, void *context)
{
    struct world *world = context;
    (void)message;
    atomic_fetch_add(&world->called[INLINE], 1);
}

static void on_dispatch(const fastmq_message *message, void *context)
{
    struct world *world = context;
    (void)message;
    atomic_fetch_add(&world->called[DISPATCH], 1);
}

/* Publishes in its turn, so that the library's own threads meet the refusals too. */
static void on_thread(const fastmq_message *message, void *context)
{
    struct world *world = context;
    fastmq_publish(world->client, text("nobody"), message->payload);
    gate_add(&world->thread_calls, 1);
}

static void on_ask_here(const fastmq_message *message, void *context)
{
    struct world *world = context;
    if (fastmq_reply(world->client, message->token, text("here")) != FASTMQ_OK) {
        answer_later(world, message->token);
    }
}

static const struct {
    const char *pattern, *group;
    fastmq_delivery delivery;
    fastmq_on_message on_message;
} SUBSCRIBED[SUBSCRIPTIONS] = {
    [PLAIN] = {"plain.*", "", FASTMQ_DELIVERY_QUEUE, NULL},
    [SHARED] = {"shared.a", "", FASTMQ_DELIVERY_QUEUE, NULL},
    [SHARED_TOO] = {"shared.>", "", FASTMQ_DELIVERY_QUEUE, NULL},
    [WORKER] = {"work", "workers", FASTMQ_DELIVERY_QUEUE, NULL},
    [WORKER_TOO] = {"work", "workers", FASTMQ_DELIVERY_QUEUE, NULL},
    [INLINE] = {"inline", "", FASTMQ_DELIVERY_INLINE, on_inline},
    [THREAD] = {"thread", "", FASTMQ_DELIVERY_THREAD, on_thread},
    [DISPATCH] = {"dispatch", "", FASTMQ_DELIVERY_DISPATCH, on_dispatch},
    [ASK] = {"ask", "", FASTMQ_DELIVERY_QUEUE, NULL},
    [ASK_HERE] = {"ask.here", "", FASTMQ_DELIVERY_INLINE, on_ask_here},
};

static void subscribe_one(struct world *world, int which)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.delivery = SUBSCRIBED[which].delivery;
    options.group = text(SUBSCRIBED[which].group);
    options.on_message = SUBSCRIBED[which].on_message;
    options.context = options.on_message == NULL ? NULL : world;
    if (which == SHARED || which == SHARED_TOO) {
        options.queue = world->queue;
        options.tag = (uint64_t)which;
        if (world->queue == NULL) {
            return;
        }
    }
    atomic_store(&is_starting_thread, which == THREAD);
    OPEN(fastmq_subscribe(world->client, text(SUBSCRIBED[which].pattern), &options,
                          &world->subscriptions[which]));
    atomic_store(&is_starting_thread, 0);
}

/* Many subscriptions for one subject. */
static void subscribe_fan(struct world *world)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.queue = world->queue;
    options.tag = FAN;
    for (int i = 0; i < FANNED && world->queue != NULL; i++) {
        if (world->fan[i] == NULL) {
            OPEN(fastmq_subscribe(world->client, text("fan"), &options, &world->fan[i]));
        }
    }
}

static void publish_fan(struct world *world, size_t size)
{
    if (OPEN(fastmq_publish(world->client, text("fan"), bytes(large, size)))) {
        for (int i = 0; i < FANNED; i++) {
            world->expected[FAN] += world->fan[i] != NULL;
        }
    }
}

/* Opens what is not open yet. */
static void open_all(struct world *world)
{
    fastmq_queue_options queue_options = {.struct_size = sizeof queue_options};
    fastmq_requester_options requester_options = {.struct_size = sizeof requester_options};
    queue_options.capacity = 1 << 20;
    requester_options.subject = text("ask");
    if (world->client == NULL && !OPEN(fastmq_open(NULL, &world->client))) {
        return;
    }
    if (world->queue == NULL) {
        OPEN(fastmq_queue_open(world->client, &queue_options, &world->queue));
    }
    for (int i = 0; i < SUBSCRIPTIONS; i++) {
        if (world->subscriptions[i] == NULL) {
            subscribe_one(world, i);
        }
    }
    subscribe_fan(world);
    if (world->publisher == NULL) {
        OPEN(fastmq_publisher_open(world->client, text("plain.p"), &world->publisher));
    }
    if (world->inline_publisher == NULL) {
        OPEN(fastmq_publisher_open(world->client, text("inline"), &world->inline_publisher));
    }
    if (world->requester == NULL) {
        OPEN(fastmq_requester_open(world->client, &requester_options, &world->requester));
    }
    if (world->headers == NULL) {
        OPEN(fastmq_headers_open(&world->headers));
    }
}

/* Notes `count` messages that were accepted while a subscription was open. */
static void expect(struct world *world, int which, uint64_t count)
{
    if (world->subscriptions[which] != NULL) {
        world->expected[which] += count;
    }
}

static void publish_to(struct world *world, const char *subject, int which, fastmq_bytes payload)
{
    if (OPEN(fastmq_publish(world->client, text(subject), payload))) {
        expect(world, which, 1);
        if (which == SHARED) {
            expect(world, SHARED_TOO, 1);
        }
    }
}

static void publish_by_client(struct world *world)
{
    fastmq_outgoing messages[2] = {outgoing("plain.b", text("one")),
                                   outgoing("plain.c", text("two"))};
    size_t accepted = 0;
    publish_to(world, "plain.x", PLAIN, text("payload"));
    publish_to(world, "plain.x", PLAIN, bytes(large, sizeof large));
    publish_to(world, "shared.a", SHARED, text("payload"));
    publish_to(world, "shared.a", SHARED, bytes(large, sizeof large));
    publish_fan(world, 1);
    publish_fan(world, MIDDLE);
    publish_to(world, "inline", INLINE, text("payload"));
    publish_to(world, "thread", THREAD, text("payload"));
    publish_to(world, "dispatch", DISPATCH, text("payload"));
    for (int i = 0; i < 3; i++) {
        OPEN(fastmq_publish(world->client, text("nobody"), text("payload")));
    }
    for (int i = 0; i < 4; i++) {
        fastmq_bytes payload = i < 2 ? text("payload") : bytes(large, sizeof large);
        if (OPEN(fastmq_publish(world->client, text("work"), payload))
            && (world->subscriptions[WORKER] != NULL || world->subscriptions[WORKER_TOO] != NULL)) {
            world->expected[WORKER]++;
        }
    }
    OPEN(fastmq_publish_batch(world->client, messages, 2, &accepted));
    expect(world, PLAIN, accepted);
    messages[0].reply_to = text("answers.here");
    messages[0].key = text("key");
    messages[0].headers = world->headers;
    messages[0].ttl_ns = 1000 * SECOND;
    if (world->headers != NULL) {
        OPEN(fastmq_headers_add(world->headers, text("name"), text("value")));
    }
    if (OPEN(fastmq_publish_message(world->client, &messages[0]))) {
        expect(world, PLAIN, 1);
    }
    if (OPEN(fastmq_publish_wait(world->client, &messages[1], 0))) {
        expect(world, PLAIN, 1);
    }
}

static void publish_by_handle(struct world *world)
{
    fastmq_outgoing message = outgoing("", text("whole"));
    fastmq_bytes many[40];
    size_t accepted = 0;
    for (int i = 0; i < 40; i++) {
        many[i] = i == 20 ? bytes(large, sizeof large) : text("payload");
    }
    if (world->publisher == NULL) {
        return;
    }
    message.headers = world->headers;
    for (int i = 0; i < 20; i++) {
        if (OPEN(fastmq_publisher_publish(world->publisher, text("payload")))) {
            expect(world, PLAIN, 1);
        }
    }
    if (OPEN(fastmq_publisher_publish(world->publisher, bytes(large, sizeof large)))) {
        expect(world, PLAIN, 1);
    }
    if (OPEN(fastmq_publisher_publish_message(world->publisher, &message))) {
        expect(world, PLAIN, 1);
    }
    if (OPEN(fastmq_publisher_publish_wait(world->publisher, text("payload"), 0))) {
        expect(world, PLAIN, 1);
    }
    OPEN(fastmq_publisher_publish_batch(world->publisher, many, 40, &accepted));
    expect(world, PLAIN, accepted);
    for (size_t size = 100; size <= sizeof large; size *= 10) {
        uint8_t *room = NULL;
        if (OPEN(fastmq_publisher_claim(world->publisher, size, &room))) {
            memset(room, 1, size);
            if (OPEN(fastmq_publisher_commit(world->publisher, size / 2))) {
                expect(world, PLAIN, 1);
            }
            fastmq_publisher_abandon(world->publisher);
        }
    }
}

/* A thread that meets the client for the first time, publishes, asks and ends. */
static void *other_thread(void *context)
{
    struct world *world = context;
    char reply[8];
    size_t size = 0;
    if (world->inline_publisher != NULL
        && OPEN(fastmq_publisher_publish(world->inline_publisher, text("payload")))) {
        expect(world, INLINE, 1);
    }
    publish_to(world, "plain.thread", PLAIN, text("payload"));
    fastmq_request_into(world->client, text("ask.here"), text("?"), 0, reply, sizeof reply, &size);
    return NULL;
}

/* Receives everything that is there and notes the requests among it. */
static void receive_all(struct world *world, fastmq_queue *queue, int which)
{
    fastmq_batch *batch = NULL, *copy = NULL;
    if (queue == NULL) {
        return;
    }
    while (DONE(fastmq_receive(queue, 16, 0, &batch), ONE_OF(OK) | ONE_OF(AGAIN))) {
        size_t count = 0;
        if (OPEN(fastmq_batch_detach(batch, &copy))) {
            batch = copy;
        }
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            world->seen[queue == world->queue ? (int)messages[i].tag : which]++;
            if (messages[i].token != 0) {
                answer_later(world, messages[i].token);
            }
        }
        fastmq_batch_free(batch);
    }
}

static void receive_from(struct world *world, int which)
{
    if (world->subscriptions[which] != NULL) {
        receive_all(world, fastmq_subscription_queue(world->subscriptions[which]), which);
    }
}

static void receive_everything(struct world *world)
{
    uint32_t ready = 0;
    receive_from(world, PLAIN);
    receive_from(world, WORKER);
    receive_from(world, WORKER_TOO);
    receive_all(world, world->queue, SHARED);
    OPEN(fastmq_dispatch(world->client, 0, 0, &ready));
}

static void ask(struct world *world)
{
    fastmq_outgoing request = outgoing("ask.here", text("?"));
    fastmq_batch *batch = NULL;
    char reply[8];
    size_t size = 0;
    uint64_t here = world->subscriptions[ASK_HERE] == NULL ? ONE_OF(NO_RESPONDER) : ONE_OF(OK);
    /* The handler's answer may be what was refused. */
    here |= atomic_load(&refused) > 0 ? ONE_OF(TIMEOUT) : 0;
    DONE(fastmq_request_into(world->client, request.subject, request.payload, 0, reply,
                             sizeof reply, &size), here | ONE_OF(TIMEOUT));
    if (DONE(fastmq_request(world->client, &request, 0, &batch), here | ONE_OF(TIMEOUT))) {
        fastmq_batch_free(batch);
    }
    if (world->requester == NULL) {
        return;
    }
    request.token = 3;
    world->submitted += (uint64_t)OPEN(
        fastmq_requester_submit(world->requester, text("?"), 1, 1000 * SECOND));
    world->submitted += (uint64_t)OPEN(
        fastmq_requester_submit_to(world->requester, text("ask.nobody"), text("?"), 2, SECOND));
    world->submitted += (uint64_t)OPEN(
        fastmq_requester_submit_message(world->requester, &request, 1000 * SECOND));
    world->submitted += (uint64_t)OPEN(fastmq_requester_submit(
        world->requester, bytes(large, sizeof large), 4, FASTMQ_FOREVER));
    if (OPEN(fastmq_requester_submit(world->requester, text("?"), 5, 1000 * SECOND))) {
        world->submitted++;
        DONE(fastmq_requester_cancel(world->requester, 5), ONE_OF(OK) | ONE_OF(NOT_FOUND));
    }
    DONE(fastmq_requester_request_into(world->requester, text("?"), 0, reply, sizeof reply, &size),
         ONE_OF(TIMEOUT) | ONE_OF(NO_RESPONDER));
}

/* Asks many: each request that was accepted ends once, whatever its responder had memory for. */
static void ask_many(struct world *world)
{
    fastmq_outgoing request = outgoing("ask.here", text("?"));
    fastmq_many_options options = {.struct_size = sizeof options};
    fastmq_batch *batch = NULL;
    uint64_t here = world->subscriptions[ASK_HERE] == NULL ? ONE_OF(NO_RESPONDER) : ONE_OF(OK);
    /* The handler's answer may be what is refused. */
    if (DONE(fastmq_request_many(world->client, &request, FASTMQ_ANSWERS_ALL, 0, &batch),
             here | ONE_OF(TIMEOUT))) {
        fastmq_batch_free(batch);
    }
    if (world->requester == NULL || world->subscriptions[ASK] == NULL) {
        return;
    }
    receive_from(world, ASK);
    options.answers_max = FASTMQ_ANSWERS_ALL;
    options.credit = 2;
    request.subject = bytes(NULL, 0);
    for (int i = 0; i < 3; i++) {
        fastmq_reply_stream *stream = NULL;
        size_t count = 0;
        uint64_t token = 0;
        if (!OPEN(fastmq_requester_submit_many(world->requester, &request, 1000 * SECOND,
                                               &options))) {
            continue;
        }
        world->submitted++;
        if (DONE(fastmq_receive(fastmq_subscription_queue(world->subscriptions[ASK]), 1, 0,
                                &batch), ONE_OF(OK) | ONE_OF(AGAIN))) {
            token = fastmq_batch_messages(batch, &count)[0].token;
            fastmq_batch_free(batch);
        }
        if (token == 0) {
            continue;
        }
        if (!DONE(fastmq_reply_stream_open(world->client, token, &stream),
                  ONE_OF(OK) | ONE_OF(UNSUPPORTED) | ONE_OF(NOT_FOUND))) {
            answer_later(world, token);
            continue;
        }
        /* One by a block; what is refused is not sent, and what was sent has no END. */
        OPEN(fastmq_reply_stream_send(stream, text("reply")));
        OPEN(fastmq_reply_stream_send(stream, bytes(large, sizeof large)));
        if (i > 0) {
            OPEN(fastmq_reply_stream_end(stream, FASTMQ_OK));
        }
        fastmq_reply_stream_close(stream);
    }
}

/* Keeps messages as last values, for one who subscribes then; `is_whole`: nothing is refused. */
static void keep_last(struct world *world, int is_whole)
{
    static const char *const subjects[] = {"last.a", "last.b", "last.c"};
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_subscription *late = NULL;
    fastmq_batch *batch = NULL;
    size_t seen = 0, count = 0;
    for (int i = 0; i < 4; i++) {
        fastmq_outgoing message = outgoing(subjects[i % 3],
                                           bytes(large, i == 1 ? sizeof large : 100));
        message.flags = FASTMQ_OUTGOING_KEEP_LAST;
        if (i == 3) {
            options.flags = FASTMQ_SUBSCRIBE_REPLAY_LAST;
            OPEN(fastmq_subscribe(world->client, text("last.*"), &options, &late));
        }
        OPEN(fastmq_publish_message(world->client, &message));
    }
    if (late == NULL) {
        return;
    }
    while (DONE(fastmq_receive(fastmq_subscription_queue(late), 2, 0, &batch),
                ONE_OF(OK) | ONE_OF(AGAIN))) {
        fastmq_batch_messages(batch, &count);
        seen += count;
        fastmq_batch_free(batch);
    }
    wrong_answers += is_whole ? seen != 4 : seen > 4;
    fastmq_unsubscribe(late);
    if (is_whole) {
        for (int i = 0; i < 3; i++) {
            OPEN(fastmq_forget_last(world->client, text(subjects[i])));
        }
    }
}

/* Two members share by key, and one leaves: what it has not read goes to the other, or ends where
 * there is no memory for a copy. `is_whole`: nothing is refused. */
static void hand_over(struct world *world, int is_whole)
{
    enum { KEYS = 16 };
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_subscription *leaves = NULL, *stays = NULL;
    fastmq_batch *batch = NULL;
    uint64_t accepted = 0, seen = 0;
    options.group = text("by.key");
    options.group_mode = FASTMQ_GROUP_KEY_SHARED;
    OPEN(fastmq_subscribe(world->client, text("keyed"), &options, &leaves));
    OPEN(fastmq_subscribe(world->client, text("keyed"), &options, &stays));
    for (uint8_t key = 0; key < KEYS; key++) {
        fastmq_outgoing message = outgoing("keyed", bytes(large, key % 4 == 0 ? sizeof large : 9));
        message.key = bytes(&key, 1);
        accepted += (uint64_t)OPEN(fastmq_publish_message(world->client, &message));
    }
    fastmq_unsubscribe(leaves);
    if (stays == NULL) {
        return;
    }
    while (DONE(fastmq_receive(fastmq_subscription_queue(stays), 3, 0, &batch),
                ONE_OF(OK) | ONE_OF(AGAIN))) {
        size_t count = 0;
        fastmq_batch_messages(batch, &count);
        seen += count;
        fastmq_batch_free(batch);
    }
    wrong_answers += is_whole ? seen != accepted || accepted != KEYS : seen > accepted;
    fastmq_unsubscribe(stays);
}

/* Listens to who comes and goes, late: what there is no memory for is dropped and counted. */
static void listen(struct world *world)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_subscription *one = NULL, *two = NULL, *listener = NULL;
    fastmq_batch *batch = NULL;
    size_t told = 0, count = 0;
    options.flags = FASTMQ_SUBSCRIBE_REPLAY_LAST;
    OPEN(fastmq_subscribe(world->client, text("there"), NULL, &one));
    OPEN(fastmq_subscribe(world->client, text("$SYS.*.there"), &options, &listener));
    OPEN(fastmq_subscribe(world->client, text("there"), NULL, &two));
    told += one != NULL ? 2 : 0;
    told += two != NULL ? 2 : 0;
    fastmq_unsubscribe(one);
    fastmq_unsubscribe(two);
    if (listener == NULL) {
        return;
    }
    while (DONE(fastmq_receive(fastmq_subscription_queue(listener), 3, 0, &batch),
                ONE_OF(OK) | ONE_OF(AGAIN))) {
        fastmq_batch_messages(batch, &count);
        told -= count;
        fastmq_batch_free(batch);
    }
    fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
    if (OPEN(fastmq_subscription_statistics_read(listener, &figures))) {
        int is_missing = told != figures.dropped && atomic_load(&refused) == 0;
        wrong_answers += is_missing || told < figures.dropped;
    }
    fastmq_unsubscribe(listener);
}

/* Answers what waits; what could not be answered is answered next time. */
static void answer(struct world *world)
{
    fastmq_outgoing whole = outgoing("", bytes(large, sizeof large));
    size_t left = 0;
    whole.headers = world->headers;
    receive_from(world, ASK);
    for (size_t i = 0; i < world->token_count; i++) {
        uint64_t token = world->tokens[i];
        fastmq_status status = i % 2 == 0
            ? fastmq_reply(world->client, token, text("answer"))
            : fastmq_reply_message(world->client, token, &whole, FASTMQ_OK);
        if (!DONE(status, ONE_OF(OK) | ONE_OF(NOT_FOUND)) && status != FASTMQ_NOT_FOUND) {
            world->tokens[left++] = token;
        }
    }
    world->token_count = left;
}

static void collect(struct world *world)
{
    fastmq_batch *batch = NULL;
    if (world->requester == NULL) {
        return;
    }
    while (DONE(fastmq_requester_receive(world->requester, 2, 0, &batch),
                ONE_OF(OK) | ONE_OF(AGAIN))) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            world->answered += (messages[i].flags & FASTMQ_MESSAGE_MORE) == 0;
        }
        fastmq_batch_free(batch);
    }
}

static void look_around(struct world *world)
{
    fastmq_client_statistics client = {.struct_size = sizeof client};
    fastmq_queue_statistics queue = {.struct_size = sizeof queue};
    fastmq_subscription_statistics subscription = {.struct_size = sizeof subscription};
    OPEN(fastmq_client_statistics_read(world->client, &client));
    if (world->queue != NULL) {
        OPEN(fastmq_queue_statistics_read(world->queue, &queue));
        wrong_answers += fastmq_queue_fd(world->queue) < 0;
    }
    if (world->subscriptions[PLAIN] != NULL) {
        OPEN(fastmq_subscription_statistics_read(world->subscriptions[PLAIN], &subscription));
        wrong_answers += fastmq_subscription_id(world->subscriptions[PLAIN]) == 0;
    }
    wrong_answers += fastmq_fd(world->client) < 0;
    fastmq_next_deadline(world->client);
}

/* A client whose end meets the refusals. */
static void short_life(void)
{
    fastmq_client *client = NULL;
    fastmq_queue *queue = NULL;
    fastmq_subscription *subscription = NULL, *called = NULL;
    fastmq_publisher *publisher = NULL;
    fastmq_requester *requester = NULL;
    fastmq_batch *batch = NULL;
    fastmq_queue_options options = {.struct_size = sizeof options};
    fastmq_subscribe_options shared = {.struct_size = sizeof shared};
    options.policy = FASTMQ_POLICY_DROP_OLDEST;
    options.capacity = SMALL_CAPACITY;
    if (!OPEN(fastmq_open(NULL, &client))) {
        return;
    }
    OPEN(fastmq_queue_open(client, &options, &queue));
    shared.queue = queue;
    OPEN(fastmq_subscribe(client, text("life.*"), &shared, &subscription));
    shared.queue = NULL;
    shared.delivery = FASTMQ_DELIVERY_DISPATCH;
    shared.on_message = on_inline;
    OPEN(fastmq_subscribe(client, text("call"), &shared, &called));
    OPEN(fastmq_publisher_open(client, text("life.x"), &publisher));
    OPEN(fastmq_requester_open(client, NULL, &requester));
    for (int i = 0; i < 40; i++) {
        fastmq_bytes payload = bytes(large, i % 8 == 0 ? sizeof large : 200);
        OPEN(fastmq_publish(client, text("life.y"), payload));
        if (publisher != NULL) {
            OPEN(fastmq_publisher_publish(publisher, payload));
        }
    }
    if (requester != NULL) {
        DONE(fastmq_requester_submit_to(requester, text("life.z"), text("?"), 1, SECOND),
             ONE_OF(OK) | ONE_OF(NO_SPACE));
    }
    if (queue != NULL) {
        DONE(fastmq_receive(queue, 4, 0, &batch), ONE_OF(OK) | ONE_OF(AGAIN));
    }
    DONE(fastmq_drain(client, 0), ONE_OF(OK) | ONE_OF(TIMEOUT));
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    fastmq_batch_free(batch);
    fastmq_close(client);
    fastmq_unsubscribe(called);
    fastmq_requester_close(requester);
    fastmq_publisher_close(publisher);
}

/* Everything once, while memory may be refused. */
static void live_through(struct world *world)
{
    pthread_t thread;
    open_all(world);
    if (world->client == NULL) {
        return;
    }
    publish_by_client(world);
    publish_by_handle(world);
    NEED(pthread_create(&thread, NULL, other_thread, world) == 0);
    NEED(pthread_join(thread, NULL) == 0);
    look_around(world);
    receive_everything(world);
    ask(world);
    ask_many(world);
    answer(world);
    collect(world);
    keep_last(world, 0);
    listen(world);
    hand_over(world, 0);
    short_life();
}

/* There is memory again: the same objects do what they are for, and nothing is missing. */
static int recovers(struct world *world)
{
    int wrong_before = wrong_answers, wrong = 0;
    refuse(0, 0);
    open_all(world);
    publish_by_client(world);
    publish_by_handle(world);
    ask(world);
    ask_many(world);
    answer(world);
    collect(world);
    keep_last(world, 1);
    listen(world);
    hand_over(world, 1);
    receive_everything(world);
    if (world->answered != world->submitted) {
        printf("# %llu answers to %llu requests\n", (unsigned long long)world->answered,
               (unsigned long long)world->submitted);
        wrong++;
    }
    wrong += !gate_wait(&world->thread_calls, world->expected[THREAD]);
    world->seen[WORKER] += world->seen[WORKER_TOO];
    world->seen[WORKER_TOO] = 0;
    world->seen[INLINE] = atomic_load(&world->called[INLINE]);
    world->seen[DISPATCH] = atomic_load(&world->called[DISPATCH]);
    world->seen[THREAD] = gate_count(&world->thread_calls);
    for (int i = 0; i < TAGS; i++) {
        /* Requests are counted by their answers. */
        if (i != ASK && i != ASK_HERE && world->seen[i] != world->expected[i]) {
            printf("# tag %d: %llu came, %llu were accepted\n", i,
                   (unsigned long long)world->seen[i], (unsigned long long)world->expected[i]);
            wrong++;
        }
    }
    wrong += !OPEN(fastmq_drain(world->client, PATIENCE));
    return wrong + wrong_answers - wrong_before;
}

static void close_all(struct world *world)
{
    fastmq_headers_close(world->headers);
    fastmq_requester_close(world->requester);
    fastmq_publisher_close(world->publisher);
    fastmq_publisher_close(world->inline_publisher);
    for (int i = 0; i < SUBSCRIPTIONS; i++) {
        fastmq_unsubscribe(world->subscriptions[i]);
    }
    for (int i = 0; i < FANNED; i++) {
        fastmq_unsubscribe(world->fan[i]);
    }
    fastmq_queue_close(world->queue);
    fastmq_close(world->client);
}

/* One run; the number of requests that were refused. */
static unsigned long long run(unsigned long long from, unsigned long long to, int *broken)
{
    struct world world = {.thread_calls = GATE_INIT};
    int before = wrong_answers;
    refuse(from, to);
    live_through(&world);
    unsigned long long count = atomic_load(&refused);
    int wrong = wrong_answers - before;
    wrong += recovers(&world);
    close_all(&world);
    if (wrong > 0) {
        printf("# broken when the requests %llu to %llu are refused\n", from, to);
        *broken += wrong;
    }
    return count;
}

/* How a process that lives through one run ends. */
enum { NOTHING_REFUSED = 0, ALL_WELL = 10, BROKEN = 11 };

static int run_alone(unsigned long long from, unsigned long long to)
{
    int broken = 0;
    unsigned long long count = run(from, to, &broken);
    return broken > 0 ? BROKEN : count == 0 ? NOTHING_REFUSED : ALL_WELL;
}

/* The same in a process of its own, where the library's tables do not exist yet either. */
static int run_in_child(const char *self, unsigned long long from, unsigned long long to)
{
    char from_text[24], to_text[24];
    int status = 0;
    snprintf(from_text, sizeof from_text, "%llu", from);
    snprintf(to_text, sizeof to_text, "%llu", to);
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", self, from_text, to_text, (char *)NULL);
        _exit(127);
    }
    NEED(waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status)) {
        printf("# signal %d when the requests %llu to %llu are refused\n", WTERMSIG(status), from,
               to);
        return BROKEN;
    }
    return WEXITSTATUS(status);
}

static void fresh_sweep(const char *self, int is_only_one, const char *name)
{
    unsigned long long k = 0, broken = 0;
    int end = ALL_WELL;
    while (end != NOTHING_REFUSED) {
        end = run_in_child(self, k, is_only_one ? k + 1 : ULLONG_MAX);
        broken += end != ALL_WELL && end != NOTHING_REFUSED;
        k++;
    }
    CHECK_NUMBER(broken, 0, name);
    printf("# %llu requests\n", k - 1);
    CHECK(k > 200, "and there was much to refuse");
}

static void sweep(int is_only_one, const char *name)
{
    int broken = 0;
    for (unsigned long long k = 0; run(k, is_only_one ? k + 1 : ULLONG_MAX, &broken) > 0; k++) {
    }
    CHECK_NUMBER(broken, 0, name);
}

/* Runs in which nothing is refused, until tables of the process have found their size. */
static long long settle(void)
{
    int broken = 0;
    for (int i = 0; i < 200; i++) {
        NEED(run(0, 0, &broken) == 0 && broken == 0);
    }
    return atomic_load(&live);
}

int main(int count, char **arguments)
{
    NEED(find_library());
    check_begin();
    if (count == 3) {
        return run_alone(strtoull(arguments[1], NULL, 10), strtoull(arguments[2], NULL, 10));
    }
    fresh_sweep(arguments[0], 1, "the k-th request is refused: every call answers, all goes on");
    fresh_sweep(arguments[0], 0, "all from the k-th on are refused: the same");
    long long before = settle();
    sweep(1, "the k-th is refused, one life after another in one process");
    sweep(0, "all from the k-th on are refused, likewise");
    long long leaked = settle() - before;
    printf("# %lld blocks more than before\n", leaked);
    CHECK(leaked < 32, "nothing leaks, whatever is refused");
    return check_end();
}
