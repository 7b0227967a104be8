/* fork(2) in the host process: the child's copies of the handles are refused, the parent lives on.
 *
 * Decided here: in a child of a process that had opened a client, each call on an inherited handle
 * is MISUSE; closing them returns and frees. A child of a process that had opened none is like any
 * other process. (Whether a child may open a new client beside inherited ones is not asserted.)
 */
/* Not under valgrind: a forked child leaves the library's memory alone on purpose (docs/abi.md),
 * which a leak check reports. */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

#include <sys/wait.h>

struct handles {
    fastmq_client *client, *remote;
    fastmq_server *server;
    fastmq_subscription *subscription, *by_thread;
    fastmq_queue *queue;
    fastmq_publisher *publisher;
    fastmq_requester *requester;
    fastmq_reply_stream *stream;
    fastmq_batch *batch;
};

/* Says on stderr which call of the child went wrong; returns 1 then. */
static int wrong_in_child(fastmq_status status, const char *call)
{
    if (status == FASTMQ_MISUSE) {
        return 0;
    }
    fprintf(stderr, "# child: %s returned %s\n", call, fastmq_status_name(status));
    return 1;
}
#define MISUSED(call) wrong_in_child((call), #call)

static int calls_of_the_child(const struct handles *h)
{
    fastmq_outgoing message = outgoing("fork", text("child"));
    fastmq_outgoing bare = outgoing("", text("child"));
    fastmq_bytes payload = text("child"), subject = text("fork");
    fastmq_client_statistics client_figures = {.struct_size = sizeof client_figures};
    fastmq_queue_statistics queue_figures = {.struct_size = sizeof queue_figures};
    fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
    fastmq_client *client = NULL;
    fastmq_server *server = NULL;
    fastmq_publisher *publisher = NULL;
    fastmq_queue *queue = NULL;
    fastmq_subscription *subscription = NULL;
    fastmq_requester *requester = NULL;
    fastmq_batch *batch = NULL;
    fastmq_reply_stream *stream = NULL;
    uint64_t replies = 0;
    uint8_t *room = NULL;
    char reply[8];
    size_t size = 0;
    uint32_t ready = 0;
    int wrong = 0;
    wrong += MISUSED(fastmq_publish(h->client, subject, payload));
    wrong += MISUSED(fastmq_publish_message(h->client, &message));
    wrong += MISUSED(fastmq_publish_batch(h->client, &message, 1, &size));
    wrong += MISUSED(fastmq_publish_wait(h->client, &message, FASTMQ_FOREVER));
    wrong += MISUSED(fastmq_publisher_open(h->client, subject, &publisher));
    wrong += MISUSED(fastmq_publisher_publish(h->publisher, payload));
    wrong += MISUSED(fastmq_publisher_publish_message(h->publisher, &bare));
    wrong += MISUSED(fastmq_publisher_publish_batch(h->publisher, &payload, 1, &size));
    wrong += MISUSED(fastmq_publisher_publish_wait(h->publisher, payload, FASTMQ_FOREVER));
    wrong += MISUSED(fastmq_publisher_claim(h->publisher, 8, &room));
    wrong += MISUSED(fastmq_publisher_commit(h->publisher, 8));
    fastmq_publisher_abandon(h->publisher);
    wrong += MISUSED(fastmq_listen(h->client, "tcp://127.0.0.1:0", NULL, &server));
    wrong += MISUSED(fastmq_connect("unix:/nowhere/at/all", NULL, &client));
    wrong += MISUSED(fastmq_publish(h->remote, subject, payload));
    wrong += fastmq_server_url(h->server, 0) != NULL;
    wrong += MISUSED(fastmq_server_change(h->server, NULL));
    wrong += MISUSED(fastmq_queue_open(h->client, NULL, &queue));
    wrong += MISUSED(fastmq_subscribe(h->client, subject, NULL, &subscription));
    wrong += MISUSED(fastmq_requester_open(h->client, NULL, &requester));
    wrong += MISUSED(fastmq_receive(h->queue, 1, FASTMQ_FOREVER, &batch));
    wrong += MISUSED(fastmq_batch_detach(h->batch, &batch));
    wrong += MISUSED(fastmq_request(h->client, &message, FASTMQ_FOREVER, &batch));
    wrong += MISUSED(fastmq_request_into(h->client, subject, payload, FASTMQ_FOREVER, reply, 8,
                                         &size));
    wrong += MISUSED(fastmq_reply(h->client, 1, payload));
    wrong += MISUSED(fastmq_reply_message(h->client, 1, &bare, FASTMQ_OK));
    wrong += MISUSED(fastmq_requester_submit(h->requester, payload, 1, SECOND));
    wrong += MISUSED(fastmq_requester_submit_to(h->requester, subject, payload, 1, SECOND));
    wrong += MISUSED(fastmq_requester_submit_message(h->requester, &message, SECOND));
    wrong += MISUSED(fastmq_requester_receive(h->requester, 1, FASTMQ_FOREVER, &batch));
    wrong += MISUSED(fastmq_requester_request_into(h->requester, payload, FASTMQ_FOREVER, reply,
                                                   8, &size));
    wrong += MISUSED(fastmq_requester_cancel(h->requester, 1));
    wrong += MISUSED(fastmq_requester_submit_many(h->requester, &message, SECOND, NULL));
    wrong += MISUSED(fastmq_requester_grant(h->requester, 1, 1));
    wrong += MISUSED(fastmq_request_many(h->client, &message, 2, FASTMQ_FOREVER, &batch));
    wrong += MISUSED(fastmq_reply_stream_open(h->client, 1, &stream));
    wrong += MISUSED(fastmq_reply_stream_credit(h->stream, &replies));
    wrong += MISUSED(fastmq_reply_stream_send(h->stream, payload));
    wrong += MISUSED(fastmq_reply_stream_send_message(h->stream, &bare));
    wrong += MISUSED(fastmq_reply_stream_send_wait(h->stream, payload, FASTMQ_FOREVER));
    wrong += MISUSED(fastmq_reply_stream_end(h->stream, FASTMQ_OK));
    wrong += MISUSED(fastmq_dispatch(h->client, 1, FASTMQ_FOREVER, &ready));
    wrong += MISUSED(fastmq_drain(h->client, FASTMQ_FOREVER));
    wrong += MISUSED(fastmq_client_statistics_read(h->client, &client_figures));
    wrong += MISUSED(fastmq_queue_statistics_read(h->queue, &queue_figures));
    wrong += MISUSED(fastmq_subscription_statistics_read(h->subscription, &figures));
    wrong += fastmq_fd(h->client) != -1 || fastmq_queue_fd(h->queue) != -1
        || fastmq_requester_fd(h->requester) != -1;
    return wrong;
}

static void close_all(const struct handles *h)
{
    fastmq_batch_free(h->batch);
    fastmq_reply_stream_close(h->stream);
    fastmq_requester_close(h->requester);
    fastmq_publisher_close(h->publisher);
    fastmq_unsubscribe(h->subscription);
    fastmq_unsubscribe(h->by_thread);
    fastmq_close(h->remote);
    fastmq_server_close(h->server, FASTMQ_FOREVER);
    fastmq_close(h->client);
}

/* Waits for the child; its exit code, or 255 when a signal ended it. */
static int exit_code(pid_t child)
{
    int status = 0;
    NEED(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

/* A reply stream that the requester waits for. */
static fastmq_reply_stream *open_stream(fastmq_client *client, fastmq_requester *requester)
{
    fastmq_subscription *responder = subscribe(client, "fork.stream");
    fastmq_outgoing request = outgoing("fork.stream", text("?"));
    fastmq_many_options options = {.struct_size = sizeof options, .credit = 1};
    fastmq_reply_stream *stream = NULL;
    const fastmq_message *m = NULL;
    size_t count = 0;
    NEED(fastmq_requester_submit_many(requester, &request, PATIENCE, &options) == FASTMQ_OK);
    fastmq_batch *batch = take(fastmq_subscription_queue(responder), 1, &m, &count);
    NEED(fastmq_reply_stream_open(client, m[0].token, &stream) == FASTMQ_OK);
    fastmq_batch_free(batch);
    return stream;
}

static int round_trip(void)
{
    fastmq_client *client = NULL;
    fastmq_subscription *subscription = NULL;
    if (fastmq_open(NULL, &client) != FASTMQ_OK
        || fastmq_subscribe(client, text("child"), NULL, &subscription) != FASTMQ_OK
        || publish_number(client, "child", 1) != FASTMQ_OK
        || take_all(fastmq_subscription_queue(subscription)) != 1) {
        return 1;
    }
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
    return 0;
}

static void fork_before_any_use(void)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(round_trip());
    }
    CHECK_NUMBER(exit_code(child), 0, "a child of a process without a client works like any other");
}

static void count_call(const fastmq_message *message, void *context)
{
    (void)message;
    gate_add(context, 1);
}

static void fork_beside_open_handles(void)
{
    struct handles h;
    struct gate calls = GATE_INIT;
    size_t count = 0;
    const fastmq_message *m = NULL;
    h.client = open_client();
    h.subscription = subscribe(h.client, "fork");
    h.by_thread = subscribe_call(h.client, "thread", FASTMQ_DELIVERY_THREAD, count_call, &calls);
    h.queue = fastmq_subscription_queue(h.subscription);
    h.publisher = open_publisher(h.client, "fork");
    h.requester = open_requester(h.client, "fork", 0);
    NEED(fastmq_listen(h.client, "tcp://127.0.0.1:0", NULL, &h.server) == FASTMQ_OK);
    NEED(fastmq_connect(fastmq_server_url(h.server, 0), NULL, &h.remote) == FASTMQ_OK);
    int fd = fastmq_fd(h.client);
    NEED(publish_number(h.client, "thread", 1) == FASTMQ_OK && gate_wait(&calls, 1));
    for (uint32_t i = 0; i < 2; i++) {
        NEED(publish_number(h.client, "fork", i) == FASTMQ_OK);
    }
    h.stream = open_stream(h.client, h.requester);
    h.batch = take(h.queue, 1, &m, &count);
    NEED(fastmq_requester_submit(h.requester, text("?"), 1, PATIENCE) == FASTMQ_OK);

    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(calls_of_the_child(&h));
    }
    CHECK_NUMBER(exit_code(child), 0, "in the child every call is MISUSE");
    child = fork();
    if (child == 0) {
        alarm(60);
        close_all(&h);
        _exit(0);
    }
    CHECK_NUMBER(exit_code(child), 0, "closing in the child returns, threads or not");
    child = fork();
    if (child == 0) {
        alarm(60);
        fastmq_close(h.client);
        close_all(&h);
        _exit(0);
    }
    CHECK_NUMBER(exit_code(child), 0, "parents first, too");

    CHECK(number_of(m) == 0, "the parent's open batch is untouched");
    fastmq_batch_free(h.batch);
    h.batch = take(h.queue, 8, &m, &count);
    CHECK_NUMBER(count, 2, "the parent's queue has the message and the request");
    NEED(count == 2);
    CHECK_STATUS(fastmq_reply(h.client, m[1].token, text("!")), FASTMQ_OK, "it can be answered");
    fastmq_batch *answer = NULL;
    CHECK_STATUS(fastmq_requester_receive(h.requester, 1, PATIENCE, &answer), FASTMQ_OK,
                 "the answer arrives");
    fastmq_batch_free(answer);
    NEED(publish_number(h.client, "thread", 1) == FASTMQ_OK);
    CHECK(gate_wait(&calls, 2), "the library's thread goes on in the parent");
    CHECK_NUMBER(fastmq_fd(h.client), fd, "and the parent's fds are open");
    CHECK_STATUS(fastmq_reply_stream_send(h.stream, text("!")), FASTMQ_OK,
                 "its reply stream goes on");
    NEED(publish_number(h.remote, "thread", 1) == FASTMQ_OK);
    CHECK(gate_wait(&calls, 3), "and so do its server and the client of that");
    close_all(&h);
}

int main(void)
{
    check_begin();
    fork_before_any_use();
    fork_beside_open_handles();
    CHECK_NUMBER(round_trip(), 0, "the parent opens another client afterwards");
    return check_end();
}
