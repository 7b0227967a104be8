/* Two calls in one handle at once, where each handle takes one: the second is MISUSE, from the same
 * thread inside a callback or from another, and what the first one does goes on whole.
 *
 * A callback that runs on the caller's thread holds the first call where it is; of a receive that
 * waits, the figures say that it sleeps.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "calls.h"

#include <sched.h>

struct scene {
    fastmq_client *client;
    fastmq_publisher *publisher;
    fastmq_requester *requester;
    fastmq_headers *headers;
    fastmq_queue *queue;
    int calls, wrong;
    fastmq_status status;
    size_t count;
};

static void *publish_again(void *context)
{
    struct scene *scene = context;
    scene->wrong += publisher_calls(scene->publisher, is_misuse);
    return NULL;
}

static void inside_publish(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    scene->calls++;
    scene->wrong += !same(message->payload, "first");
    publish_again(scene);
    pthread_join(start_thread(publish_again, scene), NULL);
    scene->wrong += !same(message->payload, "first");
}

static void a_publisher_takes_one_call(void)
{
    struct scene scene = {.client = open_client()};
    fastmq_outgoing message = outgoing("", text("first"));
    fastmq_bytes two[2] = {text("first"), text("first")};
    size_t accepted = 0;
    fastmq_subscription *inline_one =
        subscribe_call(scene.client, "misuse", FASTMQ_DELIVERY_INLINE, inside_publish, &scene);
    fastmq_subscription *queued = subscribe(scene.client, "misuse");
    scene.publisher = open_publisher(scene.client, "misuse");
    CHECK_STATUS(fastmq_publisher_publish(scene.publisher, text("first")), FASTMQ_OK,
                 "a publish is accepted, whoever uses its publisher meanwhile");
    CHECK_STATUS(fastmq_publisher_publish_message(scene.publisher, &message), FASTMQ_OK,
                 "so is a whole message");
    CHECK_STATUS(fastmq_publisher_publish_batch(scene.publisher, two, 2, &accepted), FASTMQ_OK,
                 "and a batch");
    CHECK_STATUS(fastmq_publisher_publish_wait(scene.publisher, text("first"), SECOND), FASTMQ_OK,
                 "and one that would wait");
    CHECK_NUMBER(accepted, 2, "the whole batch");
    CHECK_NUMBER(scene.calls, 5, "each was handed over once");
    CHECK_NUMBER(scene.wrong, 0, "every other call meanwhile was MISUSE, from both threads");
    CHECK_NUMBER(take_all(fastmq_subscription_queue(queued)), 5, "and sent nothing");
    fastmq_publisher_close(scene.publisher);
    fastmq_unsubscribe(inline_one);
    fastmq_unsubscribe(queued);
    fastmq_close(scene.client);
}

static void *ask_again(void *context)
{
    struct scene *scene = context;
    scene->wrong += requester_calls(scene->requester, is_misuse);
    return NULL;
}

static void inside_ask(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    scene->calls++;
    ask_again(scene);
    pthread_join(start_thread(ask_again, scene), NULL);
    scene->wrong += fastmq_reply(scene->client, message->token, text("here")) != FASTMQ_OK;
}

static void a_requester_takes_one_call(void)
{
    struct scene scene = {.client = open_client()};
    fastmq_outgoing message = outgoing("misuse", text("?"));
    fastmq_batch *batch = NULL;
    char reply[8];
    size_t size = 0, count = 0;
    fastmq_subscription *responder =
        subscribe_call(scene.client, "misuse", FASTMQ_DELIVERY_INLINE, inside_ask, &scene);
    scene.requester = open_requester(scene.client, "misuse", 0);
    CHECK_STATUS(fastmq_requester_submit(scene.requester, text("?"), 1, SECOND), FASTMQ_OK,
                 "a submit is accepted, whoever uses its requester meanwhile");
    CHECK_STATUS(fastmq_requester_submit_to(scene.requester, subject, text("?"), 2, SECOND),
                 FASTMQ_OK, "so is one to another subject");
    CHECK_STATUS(fastmq_requester_submit_message(scene.requester, &message, SECOND), FASTMQ_OK,
                 "and a whole message");
    CHECK_STATUS(fastmq_requester_request_into(scene.requester, text("?"), SECOND, reply,
                                               sizeof reply, &size), FASTMQ_OK,
                 "and a question is answered");
    CHECK(size == 4 && memcmp(reply, "here", 4) == 0, "by its responder");
    CHECK_NUMBER(scene.calls, 4, "each was handed over once");
    CHECK_NUMBER(scene.wrong, 0, "every other call meanwhile was MISUSE, from both threads");
    CHECK_NUMBER(fastmq_requester_in_flight(scene.requester), 3, "and has submitted nothing");
    NEED(fastmq_requester_receive(scene.requester, 0, 0, &batch) == FASTMQ_OK);
    NEED(fastmq_batch_messages(batch, &count) != NULL);
    CHECK_NUMBER(count, 3, "the answers are all there");
    fastmq_batch_free(batch);
    fastmq_requester_close(scene.requester);
    fastmq_unsubscribe(responder);
    fastmq_close(scene.client);
}

static void inside_headers(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    fastmq_outgoing other = outgoing("nobody", message->payload);
    other.headers = scene->headers;
    scene->calls++;
    scene->wrong += !is_misuse(fastmq_headers_add(scene->headers, text("late"), text("value")));
    scene->wrong += !is_misuse(fastmq_publish_message(scene->client, &other));
    fastmq_headers_clear(scene->headers);
    fastmq_bytes value = {NULL, 0};
    scene->wrong += fastmq_headers_get(message->headers, text("name"), &value) != FASTMQ_OK
        || !same(value, "value");
}

static void headers_that_are_sent_stay_as_they_are(void)
{
    struct scene scene = {.client = open_client()};
    fastmq_outgoing message = outgoing("misuse", text("first"));
    fastmq_subscription *subscription =
        subscribe_call(scene.client, "misuse", FASTMQ_DELIVERY_INLINE, inside_headers, &scene);
    NEED(fastmq_headers_open(&scene.headers) == FASTMQ_OK);
    NEED(fastmq_headers_add(scene.headers, text("name"), text("value")) == FASTMQ_OK);
    message.headers = scene.headers;
    CHECK_STATUS(fastmq_publish_message(scene.client, &message), FASTMQ_OK,
                 "headers are sent, whoever uses them meanwhile");
    CHECK_NUMBER(scene.calls, 1, "to the subscriber");
    CHECK_NUMBER(scene.wrong, 0, "who cannot add to them, nor clear them, nor send them again");
    CHECK_STATUS(fastmq_headers_add(scene.headers, text("more"), text("value")), FASTMQ_OK,
                 "afterwards they take more");
    fastmq_headers_close(scene.headers);
    fastmq_unsubscribe(subscription);
    fastmq_close(scene.client);
}

static void *receive_one(void *context)
{
    struct scene *scene = context;
    fastmq_batch *batch = NULL;
    scene->status = fastmq_receive(scene->queue, 0, PATIENCE, &batch);
    if (scene->status == FASTMQ_OK) {
        fastmq_batch_messages(batch, &scene->count);
        fastmq_batch_free(batch);
    }
    return NULL;
}

/* Starts a thread that receives, and returns when it sleeps inside that call. */
static pthread_t start_receive(struct scene *scene)
{
    pthread_t thread = start_thread(receive_one, scene);
    while (queue_figures(scene->queue).waits == 0) {
        sched_yield();
    }
    return thread;
}

static void a_queue_takes_one_receive(void)
{
    struct scene scene = {.client = open_client()};
    fastmq_batch *batch = NULL;
    scene.queue = open_queue(scene.client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *subscription = subscribe_on(scene.client, "misuse", scene.queue, 0);
    pthread_t thread = start_receive(&scene);
    CHECK_STATUS(fastmq_receive(scene.queue, 1, 0, &batch), FASTMQ_MISUSE,
                 "a receive beside one that waits is MISUSE");
    CHECK_STATUS(fastmq_receive(scene.queue, 1, FASTMQ_FOREVER, &batch), FASTMQ_MISUSE,
                 "at once, however long it would wait");
    CHECK(batch == NULL, "and gives nothing");
    NEED(publish_number(scene.client, "misuse", 1) == FASTMQ_OK);
    pthread_join(thread, NULL);
    CHECK_STATUS(scene.status, FASTMQ_OK, "the first one gets the message");
    CHECK_NUMBER(scene.count, 1, "once");
    CHECK_STATUS(fastmq_receive(scene.queue, 1, 0, &batch), FASTMQ_AGAIN,
                 "then the queue is anybody's");
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(scene.queue);
    fastmq_close(scene.client);
}

static void close_inside_publish(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    scene->calls++;
    fastmq_publisher_close(scene->publisher);
    scene->wrong += publisher_calls(scene->publisher, is_misuse);
    scene->wrong += !same(message->payload, "first");
}

static void close_inside_ask(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    scene->calls++;
    fastmq_requester_close(scene->requester);
    scene->wrong += requester_calls(scene->requester, is_misuse);
    scene->wrong += !same(message->payload, "first");
}

static void closing_inside_a_call(void)
{
    struct scene scene = {.client = open_client()};
    fastmq_subscription *first = subscribe_call(scene.client, "misuse", FASTMQ_DELIVERY_INLINE,
                                                close_inside_publish, &scene);
    fastmq_subscription *second = subscribe_call(scene.client, "misuse.ask",
                                                 FASTMQ_DELIVERY_INLINE, close_inside_ask, &scene);
    scene.publisher = open_publisher(scene.client, "misuse");
    scene.requester = open_requester(scene.client, "misuse.ask", 0);
    CHECK_STATUS(fastmq_publisher_publish(scene.publisher, text("first")), FASTMQ_OK,
                 "a publisher that is closed inside its own publish ends with it");
    CHECK_STATUS(fastmq_requester_submit(scene.requester, text("first"), 1, SECOND), FASTMQ_OK,
                 "a requester inside its own submit, likewise");
    CHECK_NUMBER(scene.calls, 2, "both were handed over once");
    CHECK_NUMBER(scene.wrong, 0, "any call after the close is MISUSE");
    CHECK_NUMBER(publisher_calls(scene.publisher, is_misuse)
                 + requester_calls(scene.requester, is_misuse), 0, "also when the call is over");
    fastmq_unsubscribe(first);
    fastmq_unsubscribe(second);
    fastmq_close(scene.client);
}

int main(void)
{
    check_begin();
    a_publisher_takes_one_call();
    a_requester_takes_one_call();
    headers_that_are_sent_stay_as_they_are();
    a_queue_takes_one_receive();
    closing_inside_a_call();
    return check_end();
}
