/* Key-shared groups: the messages of a key go to one member, in order, while members come and go.
 *
 * Decided here: the subject is the key of a message without one. A key that moves is refused with
 * AGAIN until what was sent of it before was handled. What a member that leaves has not read goes
 * to the others. A pattern has one group of a name, and its members choose the same mode.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

enum { KEYS = 20, MEMBERS = 3 };

static fastmq_subscription *join(fastmq_client *client, fastmq_queue *queue)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = queue};
    options.group = text("workers");
    options.group_mode = FASTMQ_GROUP_KEY_SHARED;
    return subscribe_with(client, "job.*", &options);
}

static fastmq_status publish_key(fastmq_client *client, uint32_t key, uint32_t number)
{
    fastmq_outgoing message = outgoing("job.new", bytes(&number, sizeof number));
    message.key = bytes(&key, sizeof key);
    return fastmq_publish_message(client, &message);
}

/* Counts what waits by key; false if a key is out of order. */
static int take_in_order(fastmq_queue *queue, uint32_t *seen)
{
    fastmq_batch *batch = NULL;
    int is_right = 1;
    while (fastmq_receive(queue, 7, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            uint32_t key = KEYS;
            NEED(m[i].key.size == sizeof key);
            memcpy(&key, m[i].key.data, sizeof key);
            NEED(key < KEYS);
            is_right &= number_of(&m[i]) == seen[key];
            seen[key]++;
        }
        fastmq_batch_free(batch);
    }
    return is_right;
}

static void each_key_has_one(fastmq_client *client)
{
    fastmq_queue *queues[MEMBERS];
    fastmq_subscription *members[MEMBERS];
    uint32_t seen[MEMBERS][KEYS] = {{0}};
    for (int i = 0; i < MEMBERS; i++) {
        queues[i] = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
        members[i] = join(client, queues[i]);
    }
    for (uint32_t number = 0; number < 50; number++) {
        for (uint32_t key = 0; key < KEYS; key++) {
            NEED(publish_key(client, key, number) == FASTMQ_OK);
        }
    }
    for (int i = 0; i < MEMBERS; i++) {
        CHECK(take_in_order(queues[i], seen[i]), "each key comes in order");
    }
    int is_right = 1;
    for (uint32_t key = 0; key < KEYS; key++) {
        int owners = 0;
        for (int i = 0; i < MEMBERS; i++) {
            is_right &= seen[i][key] == 0 || seen[i][key] == 50;
            owners += seen[i][key] == 50;
        }
        is_right &= owners == 1;
    }
    CHECK(is_right, "and at one member");
    for (uint32_t number = 0; number < 30; number++) {
        NEED(publish_number(client, "job.7", number) == FASTMQ_OK);
    }
    int owners = 0;
    for (int i = 0; i < MEMBERS; i++) {
        size_t count = take_all(queues[i]);
        is_right &= count == 0 || count == 30;
        owners += count > 0;
    }
    CHECK(is_right && owners == 1, "the subject is the key of a message without one");
    for (int i = 0; i < MEMBERS; i++) {
        fastmq_unsubscribe(members[i]);
        fastmq_queue_close(queues[i]);
    }
}

static void coming_and_going(fastmq_client *client)
{
    fastmq_queue *first = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_queue *second = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *a = join(client, first);
    uint32_t seen[KEYS] = {0};
    for (uint32_t key = 0; key < KEYS; key++) {
        NEED(publish_key(client, key, 0) == FASTMQ_OK);
    }
    fastmq_subscription *b = join(client, second);
    uint32_t refused = 0;
    uint32_t sent[KEYS];
    for (uint32_t key = 0; key < KEYS; key++) {
        fastmq_status status = publish_key(client, key, 1);
        NEED(status == FASTMQ_OK || status == FASTMQ_AGAIN);
        refused += status == FASTMQ_AGAIN;
        sent[key] = status == FASTMQ_OK ? 2 : 1;
    }
    CHECK(refused > 0 && refused < KEYS, "keys that move wait until the first was handled");
    CHECK_NUMBER(take_all(second), 0, "nothing of them is at the other before");
    uint32_t ours[KEYS] = {0};
    CHECK(take_in_order(first, ours), "the former owner handles what it has");
    for (uint32_t key = 0; key < KEYS; key++) {
        NEED(ours[key] == sent[key]);
        NEED(sent[key] == 2 || publish_key(client, key, 1) == FASTMQ_OK);
        seen[key] = sent[key];
    }
    /* Half of the keys wait at the second when it leaves. */
    fastmq_unsubscribe(b);
    fastmq_queue_close(second);
    CHECK(take_in_order(first, seen), "what a member has not read goes to the others");
    for (uint32_t key = 0; key < KEYS; key++) {
        NEED(publish_key(client, key, 2) == FASTMQ_OK);
    }
    CHECK(take_in_order(first, seen), "before what comes later");
    int is_right = 1;
    for (uint32_t key = 0; key < KEYS; key++) {
        is_right &= seen[key] == 3;
    }
    CHECK(is_right, "nothing is lost and nothing comes twice");
    CHECK_NUMBER(client_figures(client).dropped, 0, "nor counted as lost");
    fastmq_unsubscribe(a);
    fastmq_queue_close(first);
}

struct leaver {
    fastmq_client *client;
    fastmq_subscription *self;
    uint32_t calls;
};

static void leave(const fastmq_message *message, void *context)
{
    struct leaver *leaver = context;
    (void)message;
    leaver->calls++;
    fastmq_unsubscribe(leaver->self);
}

static void leaving_inside_a_callback(fastmq_client *client)
{
    struct leaver leaver = {.client = client};
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.group = text("workers");
    options.group_mode = FASTMQ_GROUP_KEY_SHARED;
    options.delivery = FASTMQ_DELIVERY_DISPATCH;
    options.on_message = leave;
    options.context = &leaver;
    leaver.self = subscribe_with(client, "job.*", &options);
    uint32_t seen[KEYS] = {0};
    for (uint32_t number = 0; number < 3; number++) {
        NEED(publish_key(client, 5, number) == FASTMQ_OK);
    }
    fastmq_queue *other = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *stays = join(client, other);
    uint32_t ready = 0;
    NEED(fastmq_dispatch(client, 0, 0, &ready) == FASTMQ_OK);
    CHECK_NUMBER(leaver.calls, 1, "a callback that unsubscribes is not called again");
    seen[5] = 1;
    CHECK(take_in_order(other, seen), "the rest is for the other, in order");
    CHECK_NUMBER(seen[5], 3, "and complete");
    fastmq_unsubscribe(stays);
    fastmq_queue_close(other);
}

static void refused(fastmq_client *client)
{
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_queue *drops = open_queue(client, FASTMQ_POLICY_DROP_OLDEST, 0);
    fastmq_subscription *member = join(client, queue);
    fastmq_subscription *none = NULL;
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.group = text("workers");
    CHECK_STATUS(fastmq_subscribe(client, text("job.*"), &options, &none), FASTMQ_CONFLICT,
                 "members of a group choose the same mode");
    options.group_mode = FASTMQ_GROUP_KEY_SHARED;
    options.queue = drops;
    CHECK_STATUS(fastmq_subscribe(client, text("job.*"), &options, &none), FASTMQ_INVALID,
                 "and a queue that refuses rather than drops");
    options.queue = NULL;
    options.weight = 1001;
    CHECK_STATUS(fastmq_subscribe(client, text("job.*"), &options, &none), FASTMQ_INVALID,
                 "a weight is at most 1,000");
    options.weight = 0;
    options.group_mode = 2;
    CHECK_STATUS(fastmq_subscribe(client, text("job.*"), &options, &none), FASTMQ_INVALID,
                 "an unknown mode is refused");
    options.group_mode = FASTMQ_GROUP_KEY_SHARED;
    options.group = text("");
    CHECK_STATUS(fastmq_subscribe(client, text("job.*"), &options, &none), FASTMQ_INVALID,
                 "and so is a mode without a group");
    fastmq_unsubscribe(member);
    fastmq_queue_close(queue);
    fastmq_queue_close(drops);
}

int main(void)
{
    fastmq_client *client = open_client();
    each_key_has_one(client);
    coming_and_going(client);
    leaving_inside_a_callback(client);
    refused(client);
    fastmq_close(client);
    return check_end();
}
