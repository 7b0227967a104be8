/* The paths in C. What each does is written as a C program would write it. */
#include "paths.h"

#include <fastmq.h>

#include <stdlib.h>
#include <string.h>

struct state {
    fastmq_client *client;
    fastmq_subscription *subscription;
    fastmq_queue *queue;
    fastmq_publisher *publisher;
    fastmq_requester *requester;
    uint64_t sum; /* What handlers and readers have seen, so that they must look. */
};

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(fastmq_status status, const char *call)
{
    if (status != FASTMQ_OK) {
        path_fail(call);
    }
}

static void count(const fastmq_message *message, void *context)
{
    struct state *state = context;
    state->sum += message->payload.size + message->tag;
}

static void answer(const fastmq_message *message, void *context)
{
    struct state *state = context;
    must(fastmq_reply(state->client, message->token, message->payload), "reply");
}

static void *open_with(fastmq_delivery delivery, fastmq_policy policy,
                       fastmq_on_message on_message)
{
    struct state *state = calloc(1, sizeof *state);
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_requester_options window = {.struct_size = sizeof window};
    if (state == NULL) {
        path_fail("calloc");
    }
    must(fastmq_open(NULL, &state->client), "open");
    options.delivery = delivery;
    options.policy = policy;
    options.on_message = on_message;
    options.context = state;
    must(fastmq_subscribe(state->client, text(PATH_SUBJECT), &options, &state->subscription),
         "subscribe");
    if (on_message == NULL) {
        state->queue = fastmq_subscription_queue(state->subscription);
    }
    must(fastmq_publisher_open(state->client, text(PATH_SUBJECT), &state->publisher), "publisher");
    window.subject = text(PATH_SUBJECT);
    must(fastmq_requester_open(state->client, &window, &state->requester), "requester");
    return state;
}

static void *open_inline(void) { return open_with(FASTMQ_DELIVERY_INLINE, 0, count); }
static void *open_answering(void) { return open_with(FASTMQ_DELIVERY_INLINE, 0, answer); }
static void *open_dispatch(void) { return open_with(FASTMQ_DELIVERY_DISPATCH, 0, count); }
static void *open_queue(void) { return open_with(FASTMQ_DELIVERY_QUEUE, 0, NULL); }
static void *open_latest(void)
{
    return open_with(FASTMQ_DELIVERY_QUEUE, FASTMQ_POLICY_LATEST, NULL);
}

static void close_state(void *context)
{
    struct state *state = context;
    fastmq_requester_close(state->requester);
    fastmq_publisher_close(state->publisher);
    fastmq_unsubscribe(state->subscription);
    fastmq_close(state->client);
    free(state);
}

static void inline_by_subject(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i++) {
        must(fastmq_publish(state->client, text(PATH_SUBJECT), text(PATH_PAYLOAD)), "publish");
    }
}

static void inline_by_handle(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i++) {
        must(fastmq_publisher_publish(state->publisher, text(PATH_PAYLOAD)), "publish");
    }
}

static void inline_message(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i++) {
        fastmq_outgoing message = {.struct_size = sizeof message};
        message.payload = text(PATH_PAYLOAD);
        message.key = text("key");
        must(fastmq_publisher_publish_message(state->publisher, &message), "publish");
    }
}

static void read_batch(struct state *state)
{
    fastmq_batch *batch = NULL;
    size_t size = 0;
    must(fastmq_receive(state->queue, 0, 0, &batch), "receive");
    const fastmq_message *messages = fastmq_batch_messages(batch, &size);
    for (size_t i = 0; i < size; i++) {
        state->sum += messages[i].payload.size + messages[i].tag;
    }
    fastmq_batch_free(batch);
}

static void through_queue(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i += PATH_BATCH) {
        for (int j = 0; j < PATH_BATCH; j++) {
            must(fastmq_publisher_publish(state->publisher, text(PATH_PAYLOAD)), "publish");
        }
        read_batch(state);
    }
}

static void batch_through_queue(void *context, uint64_t count)
{
    struct state *state = context;
    fastmq_bytes payloads[PATH_BATCH];
    for (int j = 0; j < PATH_BATCH; j++) {
        payloads[j] = text(PATH_PAYLOAD);
    }
    for (uint64_t i = 0; i < count; i += PATH_BATCH) {
        size_t accepted = 0;
        must(fastmq_publisher_publish_batch(state->publisher, payloads, PATH_BATCH, &accepted),
             "publish_batch");
        read_batch(state);
    }
}

static void one_through_queue(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i++) {
        must(fastmq_publish(state->client, text(PATH_SUBJECT), text(PATH_PAYLOAD)), "publish");
        read_batch(state);
    }
}

static void any_through_queue(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i++) {
        size_t index = 0;
        must(fastmq_publisher_publish(state->publisher, text(PATH_PAYLOAD)), "publish");
        must(fastmq_wait_any(&state->queue, 1, FASTMQ_FOREVER, &index), "wait_any");
        state->sum += index;
        read_batch(state);
    }
}

static void claimed(void *context, uint64_t count)
{
    struct state *state = context;
    const size_t size = strlen(PATH_PAYLOAD);
    for (uint64_t i = 0; i < count; i += PATH_BATCH) {
        for (int j = 0; j < PATH_BATCH; j++) {
            uint8_t *data = NULL;
            must(fastmq_publisher_claim(state->publisher, size, &data), "claim");
            memcpy(data, PATH_PAYLOAD, size);
            must(fastmq_publisher_commit(state->publisher, size), "commit");
        }
        read_batch(state);
    }
}

static void update_by_subject(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i += PATH_BATCH) {
        for (int j = 0; j < PATH_BATCH; j++) {
            must(fastmq_publish(state->client, text(PATH_SUBJECT), text(PATH_PAYLOAD)), "publish");
        }
        read_batch(state);
    }
}

static void dispatched(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i += PATH_BATCH) {
        for (int j = 0; j < PATH_BATCH; j++) {
            must(fastmq_publisher_publish(state->publisher, text(PATH_PAYLOAD)), "publish");
        }
        uint32_t ready = 0;
        must(fastmq_dispatch(state->client, 0, 0, &ready), "dispatch");
    }
}

static void request_by_subject(void *context, uint64_t count)
{
    struct state *state = context;
    char reply[64];
    for (uint64_t i = 0; i < count; i++) {
        size_t size = 0;
        must(fastmq_request_into(state->client, text(PATH_SUBJECT), text(PATH_PAYLOAD),
                                 FASTMQ_FOREVER, reply, sizeof reply, &size), "request_into");
        state->sum += size;
    }
}

static void request_by_handle(void *context, uint64_t count)
{
    struct state *state = context;
    char reply[64];
    for (uint64_t i = 0; i < count; i++) {
        size_t size = 0;
        must(fastmq_requester_request_into(state->requester, text(PATH_PAYLOAD), FASTMQ_FOREVER,
                                           reply, sizeof reply, &size), "request_into");
        state->sum += size;
    }
}

static void request_batch(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i++) {
        fastmq_outgoing request = {.struct_size = sizeof request};
        fastmq_batch *reply = NULL;
        size_t size = 0;
        request.subject = text(PATH_SUBJECT);
        request.payload = text(PATH_PAYLOAD);
        must(fastmq_request(state->client, &request, FASTMQ_FOREVER, &reply), "request");
        state->sum += fastmq_batch_messages(reply, &size)->payload.size;
        fastmq_batch_free(reply);
    }
}

static void requests_in_flight(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i += PATH_BATCH) {
        for (uint64_t j = 0; j < PATH_BATCH; j++) {
            must(fastmq_requester_submit(state->requester, text(PATH_PAYLOAD), j, FASTMQ_FOREVER),
                 "submit");
        }
        for (size_t left = PATH_BATCH; left > 0;) {
            fastmq_batch *batch = NULL;
            size_t size = 0;
            must(fastmq_requester_receive(state->requester, 0, FASTMQ_FOREVER, &batch), "receive");
            const fastmq_message *messages = fastmq_batch_messages(batch, &size);
            for (size_t k = 0; k < size; k++) {
                must(messages[k].status, "answer");
                state->sum += messages[k].token;
            }
            left -= size;
            fastmq_batch_free(batch);
        }
    }
}

static void subscribe_and_end(void *context, uint64_t count)
{
    struct state *state = context;
    for (uint64_t i = 0; i < count; i += PATH_BATCH) {
        fastmq_subscribe_options options = {.struct_size = sizeof options};
        fastmq_subscription *subscription = NULL;
        options.delivery = FASTMQ_DELIVERY_INLINE;
        options.on_message = answer;
        options.context = state;
        must(fastmq_subscribe(state->client, text("other"), &options, &subscription), "subscribe");
        fastmq_unsubscribe(subscription);
    }
}

const struct path paths_c[] = {
    {"publish by subject, inline callback", open_inline, inline_by_subject, close_state},
    {"publish by handle, inline callback", open_inline, inline_by_handle, close_state},
    {"publish a message with a key, inline callback", open_inline, inline_message, close_state},
    {"publish by handle, receive 64", open_queue, through_queue, close_state},
    {"publish 64 by handle, receive 64", open_queue, batch_through_queue, close_state},
    {"publish by subject, receive 1", open_queue, one_through_queue, close_state},
    {"publish by handle, wait for any, receive 1", open_queue, any_through_queue, close_state},
    {"claim and commit by handle, receive 64", open_queue, claimed, close_state},
    {"update by subject, latest queue, receive 1", open_latest, update_by_subject, close_state},
    {"update by handle, latest queue, receive 1", open_latest, through_queue, close_state},
    {"publish by handle, dispatch 64", open_dispatch, dispatched, close_state},
    {"request into a buffer by subject, inline", open_answering, request_by_subject, close_state},
    {"request into a buffer by handle, inline", open_answering, request_by_handle, close_state},
    {"request by handle, inline callback that owns", open_answering, request_by_handle, close_state},
    {"request with a batch, inline", open_answering, request_batch, close_state},
    {"submit 64, receive the answers, inline", open_answering, requests_in_flight, close_state},
    {"subscribe with a callback and end (1 in 64)", open_inline, subscribe_and_end, close_state},
    {0, 0, 0, 0},
};
