/* Last values: whoever subscribes late and asks for them gets what publishers have kept.
 *
 * Decided here: a message is kept only if its publisher says so, a refused one is not; what is
 * replayed takes no room of the queue; groups, inline callbacks, requests and answers have none.
 */
/* valgrind */
#include "steps.h"

static fastmq_status keep(fastmq_client *client, const char *subject, uint32_t number)
{
    fastmq_outgoing message = outgoing(subject, bytes(&number, sizeof number));
    message.flags = FASTMQ_OUTGOING_KEEP_LAST;
    return fastmq_publish_message(client, &message);
}

static fastmq_subscription *subscribe_late(fastmq_client *client, const char *pattern,
                                           fastmq_queue *queue)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = queue};
    options.flags = FASTMQ_SUBSCRIBE_REPLAY_LAST;
    return subscribe_with(client, pattern, &options);
}

static int is_state(const fastmq_message *m, const char *subject, uint32_t number)
{
    return same(m->subject, subject) && number_of(m) == number && m->lost_before == 0;
}

static void replayed_first(void)
{
    fastmq_client *client = open_client();
    fastmq_publisher *b = open_publisher(client, "state.b");
    fastmq_subscription *early = subscribe_late(client, "state.*", NULL);
    uint32_t number = 2;
    fastmq_outgoing message = outgoing("", bytes(&number, sizeof number));
    message.flags = FASTMQ_OUTGOING_KEEP_LAST;
    NEED(keep(client, "state.a", 1) == FASTMQ_OK);
    NEED(fastmq_publisher_publish_message(b, &message) == FASTMQ_OK);
    NEED(keep(client, "state.a", 3) == FASTMQ_OK);
    NEED(publish_number(client, "state.a", 4) == FASTMQ_OK);
    CHECK_NUMBER(client_figures(client).last_values, 2, "the values of two subjects are kept");
    fastmq_subscription *late = subscribe_late(client, "state.*", NULL);
    fastmq_subscription *plain = subscribe(client, "state.*");
    NEED(publish_number(client, "state.b", 5) == FASTMQ_OK);
    size_t count = 0;
    const fastmq_message *m = NULL;
    fastmq_batch *batch = take(fastmq_subscription_queue(late), 0, &m, &count);
    CHECK_NUMBER(count, 3, "a late subscriber gets both, and what comes then");
    CHECK(is_state(&m[0], "state.b", 2) && is_state(&m[1], "state.a", 3)
              && is_state(&m[2], "state.b", 5),
          "in the order in which they were published; what was not to be kept is not");
    CHECK(m[0].sequence == 1 && m[0].publisher != 0, "a value has its publisher and sequence");
    fastmq_batch_free(batch);
    CHECK_NUMBER(take_all(fastmq_subscription_queue(plain)), 1, "who does not ask gets none");
    CHECK_NUMBER(take_all(fastmq_subscription_queue(early)), 5, "who was there got each once");
    CHECK_STATUS(fastmq_forget_last(client, text("state.a")), FASTMQ_OK, "a value is forgotten");
    CHECK_STATUS(fastmq_forget_last(client, text("state.a")), FASTMQ_NOT_FOUND, "once");
    CHECK_STATUS(fastmq_forget_last(client, text("state.*")), FASTMQ_INVALID, "by its subject");
    CHECK_NUMBER(client_figures(client).last_values, 1, "and is not kept any more");
    fastmq_unsubscribe(early);
    fastmq_unsubscribe(late);
    fastmq_unsubscribe(plain);
    fastmq_publisher_close(b);
    fastmq_close(client);
}

static void full_queues(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *full = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    fastmq_subscription *fill = subscribe_on(client, "fill", full, 1);
    NEED(keep(client, "state", 1) == FASTMQ_OK);
    while (publish_wide(client, "fill", 0) == FASTMQ_OK) {
    }
    fastmq_subscription *late = subscribe_late(client, "state", full);
    uint8_t wide[200] = {2};
    fastmq_outgoing message = outgoing("state", bytes(wide, sizeof wide));
    message.flags = FASTMQ_OUTGOING_KEEP_LAST;
    CHECK_STATUS(fastmq_publish_message(client, &message), FASTMQ_AGAIN,
                 "what a queue refuses is refused");
    size_t count = 0;
    const fastmq_message *m = NULL;
    fastmq_batch *batch = take(full, 1, &m, &count);
    CHECK(is_state(&m[0], "state", 1), "a value comes to a full queue, and before what is in it");
    fastmq_batch_free(batch);
    fastmq_subscription *later = subscribe_late(client, "state", NULL);
    batch = take(fastmq_subscription_queue(later), 0, &m, &count);
    CHECK(count == 1 && is_state(&m[0], "state", 1), "what was refused is not kept");
    fastmq_batch_free(batch);
    fastmq_unsubscribe(fill);
    fastmq_unsubscribe(late);
    fastmq_unsubscribe(later);
    fastmq_queue_close(full);
    fastmq_close(client);
}

static void on_message(const fastmq_message *message, void *context)
{
    uint64_t *heard = context;
    *heard = 10 * *heard + number_of(message);
}

static void callbacks(void)
{
    fastmq_client *client = open_client();
    uint64_t heard = 0;
    uint32_t what = 0;
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.flags = FASTMQ_SUBSCRIBE_REPLAY_LAST;
    options.delivery = FASTMQ_DELIVERY_DISPATCH;
    options.on_message = on_message;
    options.context = &heard;
    NEED(keep(client, "state.a", 1) == FASTMQ_OK);
    NEED(keep(client, "state.b", 2) == FASTMQ_OK);
    fastmq_subscription *called = subscribe_with(client, "state.*", &options);
    NEED(keep(client, "state.a", 3) == FASTMQ_OK);
    NEED(fastmq_dispatch(client, 0, 0, &what) == FASTMQ_OK);
    CHECK_NUMBER(heard, 123, "a callback hears the values first");
    fastmq_unsubscribe(called);
    fastmq_close(client);
}

static void refused(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *none = NULL;
    fastmq_batch *batch = NULL;
    uint64_t heard = 0;
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.flags = FASTMQ_SUBSCRIBE_REPLAY_LAST;
    options.group = text("g");
    CHECK_STATUS(fastmq_subscribe(client, text("a"), &options, &none), FASTMQ_INVALID,
                 "a group gets no last values");
    options.group = text("");
    options.delivery = FASTMQ_DELIVERY_INLINE;
    options.on_message = on_message;
    options.context = &heard;
    CHECK_STATUS(fastmq_subscribe(client, text("a"), &options, &none), FASTMQ_INVALID,
                 "nor does an inline callback");
    CHECK(none == NULL, "and nothing is to be freed");
    fastmq_subscription *responder = subscribe(client, "a");
    fastmq_requester *requester = open_requester(client, "", 0);
    fastmq_outgoing message = outgoing("a", text("?"));
    message.flags = FASTMQ_OUTGOING_KEEP_LAST;
    CHECK_STATUS(fastmq_request(client, &message, 0, &batch), FASTMQ_INVALID,
                 "a request is not kept");
    CHECK_STATUS(fastmq_requester_submit_message(requester, &message, 0), FASTMQ_INVALID,
                 "nor is one in flight");
    message.flags = 0;
    size_t count = 0;
    const fastmq_message *m = NULL;
    NEED(fastmq_requester_submit_message(requester, &message, SECOND) == FASTMQ_OK);
    batch = take(fastmq_subscription_queue(responder), 0, &m, &count);
    fastmq_outgoing answer = outgoing("", text("!"));
    answer.flags = FASTMQ_OUTGOING_KEEP_LAST;
    CHECK_STATUS(fastmq_reply_message(client, m->token, &answer, FASTMQ_OK), FASTMQ_INVALID,
                 "nor is an answer");
    answer.flags = 0;
    CHECK_STATUS(fastmq_reply_message(client, m->token, &answer, FASTMQ_OK), FASTMQ_OK,
                 "which is given all the same, without the flag");
    fastmq_batch_free(batch);
    CHECK_NUMBER(client_figures(client).last_values, 0, "and nothing was kept");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
    fastmq_close(client);
}

struct keeper {
    fastmq_client *client;
    _Atomic uint32_t is_over;
    uint32_t number;
};

static void *keep_on(void *context)
{
    struct keeper *keeper = context;
    while (!atomic_load(&keeper->is_over)) {
        uint32_t number = ++keeper->number;
        fastmq_outgoing message = outgoing("load", bytes(&number, sizeof number));
        message.flags = FASTMQ_OUTGOING_KEEP_LAST;
        /* The reader may be much slower, under valgrind for one. */
        NEED(fastmq_publish_wait(keeper->client, &message, PATIENCE) == FASTMQ_OK);
    }
    return NULL;
}

static void beside_a_publisher(void)
{
    enum { ROUNDS = 300, EACH = 5 };
    fastmq_client *client = open_client();
    struct keeper keeper = {.client = client};
    NEED(keep(client, "load", 0) == FASTMQ_OK);
    pthread_t thread = start_thread(keep_on, &keeper);
    uint32_t gaps = 0, next = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        fastmq_subscription *late = subscribe_late(client, "load", NULL);
        uint32_t seen = 0;
        while (seen < EACH) {
            fastmq_batch *batch = NULL;
            size_t count = 0;
            NEED(fastmq_receive(fastmq_subscription_queue(late), 0, PATIENCE, &batch)
                 == FASTMQ_OK);
            const fastmq_message *m = fastmq_batch_messages(batch, &count);
            for (size_t i = 0; i < count; i++) {
                /* The last that was seen may not have been kept yet. */
                gaps += seen > 0 ? number_of(&m[i]) != next : number_of(&m[i]) + 2 < next;
                next = number_of(&m[i]) + 1;
                seen++;
            }
            fastmq_batch_free(batch);
        }
        fastmq_unsubscribe(late);
    }
    atomic_store(&keeper.is_over, 1);
    NEED(pthread_join(thread, NULL) == 0);
    CHECK_NUMBER(gaps, 0, "from the last value on nothing is missing, doubled or out of order");
    fastmq_close(client);
}

static void memory_max(void)
{
    fastmq_options options = {.struct_size = sizeof options, .memory_max = 64 << 10};
    fastmq_client *client = NULL;
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    char subject[32];
    uint32_t kept = 0;
    fastmq_status status = FASTMQ_OK;
    while (status == FASTMQ_OK && kept < 10000) {
        snprintf(subject, sizeof subject, "many.%u", kept);
        status = keep(client, subject, kept);
        kept += status == FASTMQ_OK;
    }
    CHECK_STATUS(status, FASTMQ_NO_SPACE, "memory_max bounds what is kept");
    CHECK_NUMBER(client_figures(client).last_values, kept, "what was accepted is");
    CHECK(kept > 50, "and it is not nothing");
    CHECK_STATUS(fastmq_forget_last(client, text("many.0")), FASTMQ_OK, "one is forgotten");
    CHECK_STATUS(keep(client, "many.new", 1), FASTMQ_OK, "and another has its room");
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    replayed_first();
    full_queues();
    callbacks();
    refused();
    beside_a_publisher();
    memory_max();
    return check_end();
}
