/* A broker that listens, and what tests of its clients have in common.
 *
 * It listens at a socket file in a directory of its own, at a free port of the loopback, and for
 * shared memory. What is static is inline, as not every test uses all of it.
 */
#ifndef FASTMQ_TESTS_SERVED_H
#define FASTMQ_TESTS_SERVED_H

#include "steps.h"

#include <sys/stat.h>

/* the server */

struct served {
    fastmq_client *broker;
    fastmq_server *server;
    char directory[64], socket[96], urls[256];
    char url[3][96]; /* unix, tcp, shm */
};

static inline void listen_again(struct served *served, const fastmq_listen_options *options)
{
    NEED(fastmq_listen(served->broker, served->urls, options, &served->server) == FASTMQ_OK);
    for (size_t i = 0; i < 3; i++) {
        const char *url = fastmq_server_url(served->server, i);
        NEED(url != NULL);
        snprintf(served->url[i], sizeof served->url[i], "%s", url);
    }
}

static inline void serve_by(struct served *served, fastmq_client *broker,
                            const fastmq_listen_options *options)
{
    static int servers;
    snprintf(served->directory, sizeof served->directory, "/tmp/fastmq-remote-c-%d-%d",
             (int)getpid(), servers++);
    NEED(mkdir(served->directory, 0700) == 0);
    snprintf(served->socket, sizeof served->socket, "%s/mq", served->directory);
    snprintf(served->urls, sizeof served->urls, "unix:%s, tcp://127.0.0.1:0, shm:%s/shm",
             served->socket, served->directory);
    served->broker = broker;
    listen_again(served, options);
}

static inline void serve(struct served *served, const fastmq_listen_options *options)
{
    serve_by(served, open_client(), options);
}

static inline void end(struct served *served)
{
    fastmq_server_close(served->server, PATIENCE);
    fastmq_close(served->broker);
    NEED(rmdir(served->directory) == 0);
}

static inline fastmq_client *connect_to(const char *url)
{
    fastmq_client *client = NULL;
    NEED(fastmq_connect(url, NULL, &client) == FASTMQ_OK);
    return client;
}

/* The number of the next message, which is waited for. */
static inline uint32_t next_number(fastmq_subscription *subscription)
{
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_batch *batch = NULL;
    size_t count = 0;
    NEED(fastmq_receive(queue, 1, PATIENCE, &batch) == FASTMQ_OK);
    uint32_t number = number_of(fastmq_batch_messages(batch, &count));
    fastmq_batch_free(batch);
    return number;
}

/* requests */

static inline void answer_number(const fastmq_message *message, void *context)
{
    uint32_t twice = 2 * number_of(message);
    fastmq_reply(context, message->token, bytes(&twice, sizeof twice));
}

static inline uint32_t ask(fastmq_client *client, const char *subject, uint32_t number)
{
    uint32_t answer = 0;
    size_t size = 0;
    NEED(fastmq_request_into(client, text(subject), bytes(&number, sizeof number), PATIENCE,
                             &answer, sizeof answer, &size) == FASTMQ_OK);
    return answer;
}

/* events */

struct told {
    struct gate kinds[9];
    fastmq_client *_Atomic to_close;
    struct gate closed;
    pthread_mutex_t mutex;
    fastmq_event last;
    char detail[256], server[96];
};
#define TOLD_INIT \
    {.kinds = {GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, \
               GATE_INIT, GATE_INIT}, .closed = GATE_INIT, .mutex = PTHREAD_MUTEX_INITIALIZER}

static inline void on_event(const fastmq_event *event, void *context)
{
    struct told *told = context;
    pthread_mutex_lock(&told->mutex);
    told->last = *event;
    snprintf(told->detail, sizeof told->detail, "%.*s", (int)event->detail.size,
             (const char *)event->detail.data);
    snprintf(told->server, sizeof told->server, "%.*s", (int)event->server.size,
             (const char *)event->server.data);
    pthread_mutex_unlock(&told->mutex);
    if (event->kind < 9) {
        gate_add(&told->kinds[event->kind], 1);
    }
    if (event->kind == FASTMQ_EVENT_DISCONNECTED && event->status == FASTMQ_CLOSED) {
        gate_add(&told->closed, 1);
    } else {
        fastmq_close(atomic_exchange(&told->to_close, NULL));
    }
}

static inline fastmq_connect_options telling(struct told *told)
{
    fastmq_connect_options options = {.struct_size = sizeof options};
    options.on_event = on_event;
    options.context = told;
    options.backoff_min_ns = MILLISECOND;
    options.backoff_max_ns = 50 * MILLISECOND;
    return options;
}

static inline fastmq_event last_event(struct told *told)
{
    pthread_mutex_lock(&told->mutex);
    fastmq_event last = told->last;
    pthread_mutex_unlock(&told->mutex);
    return last;
}

/* refusals */

/* The status, and a sentence with this in it. */
static inline void says(fastmq_status got, fastmq_status expected, const char *part,
                        const char *name)
{
    CHECK_STATUS(got, expected, name);
    if (strstr(fastmq_last_error(), part) == NULL) {
        printf("# \"%s\" lacks \"%s\"\n", fastmq_last_error(), part);
        CHECK(0, "the sentence says why");
    }
}

#endif
