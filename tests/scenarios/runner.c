/* Runs scenarios in C: README.md says what they are.
 *
 * runner FILE...: each file is a scenario; runner -: steps from the standard input, each answered
 * by a line.
 */
#define LANGUAGE "c"
#include "things.h"

#include <unistd.h>

/* What listen has to tell. */
static char told[512];

/* clients and servers */

static fastmq_status does_open(struct step *step)
{
    fastmq_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    options.memory_max = take_number(step, "memory_max", 0);
    options.queue_capacity = take_number(step, "queue_capacity", 0);
    options.payload_max = take_number(step, "payload_max", 0);
    fastmq_status status = fastmq_open(&options, &client);
    keep(step, CLIENT, client);
    return status;
}

static fastmq_status does_connect(struct step *step)
{
    static const char *const schemes[] = {".unix", ".shm", ".tcp"};
    fastmq_connect_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    char url[256];
    snprintf(url, sizeof url, "%s", word(step, 1));
    char *dot = strchr(url, ':') == NULL ? strchr(url, '.') : NULL;
    for (size_t i = 0; i < 3 && dot != NULL; i++) {
        if (strcmp(dot, schemes[i]) == 0) {
            *dot = '\0';
            struct thing *server = find(url);
            const char *there = server == NULL ? "?" : fastmq_server_url(server->handle, i);
            snprintf(url, sizeof url, "%s", there);
            break;
        }
    }
    options.name = take_bytes(step, "name");
    options.token = take_bytes(step, "token");
    fastmq_status status = fastmq_connect(url, &options, &client);
    keep(step, CLIENT, client);
    return status;
}

static fastmq_status does_listen(struct step *step)
{
    static unsigned places;
    fastmq_listen_options options = {.struct_size = sizeof options};
    fastmq_server *server = NULL;
    char urls[256];
    const char *directory = getenv("TMPDIR");
    directory = directory == NULL ? "/tmp" : directory;
    unsigned place = places++;
    snprintf(urls, sizeof urls, "unix:%s/fastmq-scenario-%d-%u.sock,shm:%s/fastmq-scenario-%d-%u."
             "shm,tcp://127.0.0.1:0", directory, (int)getpid(), place, directory, (int)getpid(),
             place);
    options.name = take_bytes(step, "name");
    options.token = take_bytes(step, "token");
    fastmq_status status = fastmq_listen(handle(step, 1), urls, &options, &server);
    keep(step, SERVER, server);
    if (status == FASTMQ_OK) {
        snprintf(told, sizeof told, "%s %s %s", fastmq_server_url(server, 0),
                 fastmq_server_url(server, 1), fastmq_server_url(server, 2));
    }
    return status;
}

static fastmq_status does_drain(struct step *step)
{
    return fastmq_drain(handle(step, 0), take_timeout_ns(step));
}

static fastmq_status does_close(struct step *step)
{
    struct thing *thing = find(word(step, 0));
    if (thing != NULL) {
        end_thing(thing);
    }
    return FASTMQ_OK;
}

static fastmq_status does_client_statistics(struct step *step)
{
    fastmq_client_statistics all = {.struct_size = sizeof all};
    fastmq_status status = fastmq_client_statistics_read(handle(step, 0), &all);
    const struct figure figures[] = {
        {"published", all.published}, {"delivered", all.delivered}, {"dropped", all.dropped},
        {"expired", all.expired}, {"refused", all.refused}, {"requests", all.requests},
        {"answers", all.answers}, {"late_answers", all.late_answers}, {"queues", all.queues},
        {"subscriptions", all.subscriptions}, {"last_values", all.last_values},
    };
    same_figures(step, figures, sizeof figures / sizeof figures[0]);
    return status;
}

/* publishing */

static fastmq_status does_publish(struct step *step)
{
    fastmq_outgoing message;
    fastmq_headers *headers;
    uint64_t timeout_ns = take_timeout_ns(step);
    fastmq_status status = outgoing_of(step, bytes_at(step, 1), bytes_at(step, 2), &message,
                                       &headers);
    if (status == FASTMQ_OK && strcmp(step->verb, "publish") == 0) {
        status = fastmq_publish_message(handle(step, 0), &message);
    } else if (status == FASTMQ_OK) {
        status = fastmq_publish_wait(handle(step, 0), &message, timeout_ns);
    }
    fastmq_headers_close(headers);
    return status;
}

static fastmq_status does_forget_last(struct step *step)
{
    return fastmq_forget_last(handle(step, 0), bytes_at(step, 1));
}

static fastmq_status does_publisher_open(struct step *step)
{
    fastmq_publisher *publisher = NULL;
    fastmq_status status = fastmq_publisher_open(handle(step, 1), bytes_at(step, 2), &publisher);
    keep(step, PUBLISHER, publisher);
    return status;
}

static fastmq_status does_publisher_publish(struct step *step)
{
    fastmq_outgoing message;
    fastmq_headers *headers;
    fastmq_status status = outgoing_of(step, text_of(""), bytes_at(step, 1), &message, &headers);
    if (status == FASTMQ_OK) {
        status = fastmq_publisher_publish_message(handle(step, 0), &message);
    }
    fastmq_headers_close(headers);
    return status;
}

static fastmq_status does_publisher_claim(struct step *step)
{
    fastmq_publisher *publisher = handle(step, 0);
    uint8_t *room = NULL;
    fastmq_status status = fastmq_publisher_claim(publisher, number_of(word(step, 1)), &room);
    if (status != FASTMQ_OK || step->words_count < 3) {
        fastmq_publisher_abandon(publisher);
        return status;
    }
    fastmq_bytes payload = bytes_at(step, 2);
    if (payload.size > 0) {
        memcpy(room, payload.data, payload.size);
    }
    return fastmq_publisher_commit(publisher, payload.size);
}

/* receiving */

static uint32_t policy_of(const char *name)
{
    static const char *const names[] = {"backpressure", "drop_oldest", "drop_newest", "latest"};
    for (uint32_t i = 0; i < 4; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    fail("unknown policy %s", name);
    return 0;
}

static fastmq_status does_queue_open(struct step *step)
{
    fastmq_queue_options options = {.struct_size = sizeof options};
    fastmq_queue *queue = NULL;
    options.policy = policy_of(take(step, "policy", "backpressure"));
    options.capacity = take_number(step, "capacity", 0);
    fastmq_status status = fastmq_queue_open(handle(step, 1), &options, &queue);
    keep(step, QUEUE, queue);
    return status;
}

static fastmq_status subscribe_by(struct step *step, fastmq_subscribe_options *options)
{
    fastmq_subscription *subscription = NULL;
    const char *queue = take(step, "queue", NULL), *mode = take(step, "group_mode", "balanced");
    struct thing *feeds = queue == NULL ? NULL : find(queue);
    options->struct_size = sizeof *options;
    options->group = take_bytes(step, "group");
    options->queue = feeds == NULL ? NULL : feeds->handle;
    options->tag = take_number(step, "tag", 0);
    options->policy = policy_of(take(step, "policy", "backpressure"));
    options->flags = take_number(step, "replay_last", 0) != 0 ? FASTMQ_SUBSCRIBE_REPLAY_LAST : 0;
    options->group_mode = strcmp(mode, "key_shared") == 0 ? FASTMQ_GROUP_KEY_SHARED
                                                           : FASTMQ_GROUP_BALANCED;
    options->weight = (uint32_t)take_number(step, "weight", 0);
    fastmq_status status = fastmq_subscribe(handle(step, 1), bytes_at(step, 2), options,
                                            &subscription);
    keep(step, SUBSCRIPTION, subscription);
    return status;
}

static fastmq_status does_subscribe(struct step *step)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    return subscribe_by(step, &options);
}

static fastmq_status does_receive(struct step *step)
{
    fastmq_batch *batch = NULL;
    size_t count = 0;
    uint64_t timeout_ns = take_timeout_ns(step);
    fastmq_status status = fastmq_receive(queue_of(step, 0), 1, timeout_ns, &batch);
    if (status == FASTMQ_OK) {
        const fastmq_message *message = fastmq_batch_messages(batch, &count);
        find(word(step, 0))->token = message->token;
        check_message(step, message);
    }
    fastmq_batch_free(batch);
    return status;
}

static fastmq_status does_queue_statistics(struct step *step)
{
    fastmq_queue_statistics all = {.struct_size = sizeof all};
    fastmq_status status = fastmq_queue_statistics_read(queue_of(step, 0), &all);
    const struct figure figures[] = {
        {"published", all.published}, {"delivered", all.delivered}, {"dropped", all.dropped},
        {"expired", all.expired}, {"pending", all.pending}, {"replaced", all.replaced},
    };
    same_figures(step, figures, sizeof figures / sizeof figures[0]);
    return status;
}

static fastmq_status does_subscription_statistics(struct step *step)
{
    fastmq_subscription_statistics all = {.struct_size = sizeof all};
    fastmq_status status = fastmq_subscription_statistics_read(handle(step, 0), &all);
    const struct figure figures[] = {{"delivered", all.delivered}, {"dropped", all.dropped}};
    same_figures(step, figures, sizeof figures / sizeof figures[0]);
    return status;
}

/* asking and answering */

static void on_request(const fastmq_message *request, void *context)
{
    const struct responder *responder = context;
    fastmq_outgoing answer = {.struct_size = sizeof answer};
    size_t size = responder->prefix.size + request->payload.size;
    uint8_t *payload = calloc(1, size + 1);
    if (payload == NULL) {
        abort();
    }
    if (responder->prefix.size > 0) {
        memcpy(payload, responder->prefix.data, responder->prefix.size);
    }
    if (request->payload.size > 0) {
        memcpy(payload + responder->prefix.size, request->payload.data, request->payload.size);
    }
    answer.payload.data = payload;
    answer.payload.size = size;
    answer.headers = responder->headers;
    /* An asker that is gone is no fault. */
    (void)fastmq_reply_message(responder->client, request->token, &answer, responder->status);
    free(payload);
}

static fastmq_status does_respond(struct step *step)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    struct responder *responder = calloc(1, sizeof *responder);
    fastmq_bytes prefix = bytes_at(step, 3);
    uint8_t *copy = calloc(1, prefix.size + 1);
    size_t before = current.count;
    if (responder == NULL || copy == NULL) {
        abort();
    }
    memcpy(copy, prefix.data, prefix.size);
    responder->client = handle(step, 1);
    responder->prefix.data = copy;
    responder->prefix.size = prefix.size;
    responder->status = status_of(take(step, "status", "OK"));
    fastmq_status status = headers_of(step, &responder->headers);
    options.delivery = FASTMQ_DELIVERY_THREAD;
    options.on_message = on_request;
    options.context = responder;
    if (status == FASTMQ_OK) {
        status = subscribe_by(step, &options);
    }
    if (current.count > before) {
        current.things[before].responder = responder;
    } else {
        fastmq_headers_close(responder->headers);
        free(copy);
        free(responder);
    }
    return status;
}

static fastmq_status does_reply(struct step *step)
{
    fastmq_outgoing answer = {.struct_size = sizeof answer};
    fastmq_headers *headers;
    struct thing *asked = find(word(step, 1));
    uint32_t says = status_of(take(step, "status", "OK"));
    fastmq_status status = headers_of(step, &headers);
    answer.payload = bytes_at(step, 2);
    answer.headers = headers;
    if (status == FASTMQ_OK && asked != NULL) {
        status = fastmq_reply_message(handle(step, 0), asked->token, &answer, says);
    }
    fastmq_headers_close(headers);
    return status;
}

static fastmq_status does_request(struct step *step)
{
    fastmq_outgoing message;
    fastmq_headers *headers;
    fastmq_batch *reply = NULL;
    size_t count = 0;
    uint64_t timeout_ns = take_timeout_ns(step);
    fastmq_status status = outgoing_of(step, bytes_at(step, 1), bytes_at(step, 2), &message,
                                       &headers);
    if (status == FASTMQ_OK) {
        status = fastmq_request(handle(step, 0), &message, timeout_ns, &reply);
    }
    if (status == FASTMQ_OK) {
        const fastmq_message *answer = fastmq_batch_messages(reply, &count);
        if (step->words_count > 3) {
            same_bytes("answer", answer->payload, bytes_at(step, 3));
        }
        same_headers(step, answer->headers, "answer.");
        status = answer->status;
    }
    fastmq_batch_free(reply);
    fastmq_headers_close(headers);
    return status;
}

/* The answers are those of the words from the fourth on, in any order. */
static void same_answers(struct step *step, const fastmq_message *answers, size_t count)
{
    int is_there[WORDS_MAX] = {0};
    size_t expected = step->words_count - 3, found = 0;
    for (size_t i = 0; i < count; i++) {
        size_t j = 0;
        if (answers[i].subscription_id == 0) {
            continue;
        }
        for (; j < expected; j++) {
            fastmq_bytes wanted = bytes_at(step, 3 + j);
            if (!is_there[j] && answers[i].payload.size == wanted.size
                && memcmp(answers[i].payload.data, wanted.data, wanted.size) == 0) {
                is_there[j] = 1;
                found++;
                break;
            }
        }
        if (j == expected) {
            fail("answer %.*s is not expected", (int)answers[i].payload.size,
                 (const char *)answers[i].payload.data);
        }
    }
    same_number("answers", found, expected);
}

static fastmq_status does_request_many(struct step *step)
{
    fastmq_outgoing message;
    fastmq_headers *headers;
    fastmq_batch *batch = NULL;
    size_t count = 0;
    uint64_t timeout_ns = take_timeout_ns(step);
    uint32_t answers_max = (uint32_t)take_number(step, "answers_max", FASTMQ_ANSWERS_ALL);
    fastmq_status status = outgoing_of(step, bytes_at(step, 1), bytes_at(step, 2), &message,
                                       &headers);
    if (status == FASTMQ_OK) {
        status = fastmq_request_many(handle(step, 0), &message, answers_max, timeout_ns, &batch);
    }
    if (status == FASTMQ_OK) {
        const fastmq_message *answers = fastmq_batch_messages(batch, &count);
        same_answers(step, answers, count);
        status = answers[count - 1].subscription_id == 0 ? answers[count - 1].status : FASTMQ_OK;
    }
    fastmq_batch_free(batch);
    fastmq_headers_close(headers);
    return status;
}

static fastmq_status does_requester_open(struct step *step)
{
    fastmq_requester_options options = {.struct_size = sizeof options};
    fastmq_requester *requester = NULL;
    options.subject = take_bytes(step, "subject");
    options.in_flight_max = (uint32_t)take_number(step, "in_flight_max", 0);
    fastmq_status status = fastmq_requester_open(handle(step, 1), &options, &requester);
    keep(step, REQUESTER, requester);
    return status;
}

static fastmq_status does_submit(struct step *step)
{
    fastmq_outgoing message;
    fastmq_headers *headers;
    fastmq_many_options options = {.struct_size = sizeof options};
    uint64_t timeout_ns = take_timeout_ns(step);
    fastmq_bytes subject = take_bytes(step, "subject");
    fastmq_status status = outgoing_of(step, subject, bytes_at(step, 2), &message, &headers);
    message.token = number_of(word(step, 1)) + step->index;
    if (status != FASTMQ_OK) {
    } else if (strcmp(step->verb, "requester_submit") == 0) {
        status = fastmq_requester_submit_message(handle(step, 0), &message, timeout_ns);
    } else {
        options.answers_max = (uint32_t)take_number(step, "answers_max", 0);
        options.credit = (uint32_t)take_number(step, "credit", 0);
        status = fastmq_requester_submit_many(handle(step, 0), &message, timeout_ns, &options);
    }
    fastmq_headers_close(headers);
    return status;
}

static fastmq_status does_requester_receive(struct step *step)
{
    fastmq_batch *batch = NULL;
    size_t count = 0;
    fastmq_status status = fastmq_requester_receive(handle(step, 0), 1, PATIENCE_MS * MILLISECOND,
                                                    &batch);
    if (status == FASTMQ_OK) {
        const fastmq_message *answer = fastmq_batch_messages(batch, &count);
        same_number("token", answer->token, number_of(word(step, 1)));
        same_bytes("payload", answer->payload,
                   step->words_count > 2 ? bytes_at(step, 2) : text_of(""));
        same_headers(step, answer->headers, "header.");
        status = answer->status;
    }
    fastmq_batch_free(batch);
    return status;
}

static fastmq_status does_requester_cancel(struct step *step)
{
    return fastmq_requester_cancel(handle(step, 0), number_of(word(step, 1)));
}

static fastmq_status does_reply_stream_open(struct step *step)
{
    fastmq_reply_stream *stream = NULL;
    struct thing *asked = find(word(step, 2));
    uint64_t token = asked == NULL ? 0 : asked->token;
    fastmq_status status = fastmq_reply_stream_open(handle(step, 1), token, &stream);
    keep(step, STREAM, stream);
    return status;
}

static fastmq_status does_reply_stream_send(struct step *step)
{
    fastmq_outgoing reply = {.struct_size = sizeof reply};
    fastmq_headers *headers;
    fastmq_status status = headers_of(step, &headers);
    reply.payload = bytes_at(step, 1);
    reply.headers = headers;
    if (status == FASTMQ_OK) {
        status = fastmq_reply_stream_send_message(handle(step, 0), &reply);
    }
    fastmq_headers_close(headers);
    return status;
}

static fastmq_status does_reply_stream_end(struct step *step)
{
    return fastmq_reply_stream_end(handle(step, 0), status_of(take(step, "status", "OK")));
}

static const struct {
    const char *name;
    fastmq_status (*does)(struct step *step);
} verbs[] = {
    {"open", does_open},
    {"connect", does_connect},
    {"listen", does_listen},
    {"drain", does_drain},
    {"close", does_close},
    {"client_statistics", does_client_statistics},
    {"publish", does_publish},
    {"publish_wait", does_publish},
    {"forget_last", does_forget_last},
    {"publisher_open", does_publisher_open},
    {"publisher_publish", does_publisher_publish},
    {"publisher_claim", does_publisher_claim},
    {"queue_open", does_queue_open},
    {"subscribe", does_subscribe},
    {"unsubscribe", does_close},
    {"receive", does_receive},
    {"queue_statistics", does_queue_statistics},
    {"subscription_statistics", does_subscription_statistics},
    {"respond", does_respond},
    {"reply", does_reply},
    {"request", does_request},
    {"request_many", does_request_many},
    {"requester_open", does_requester_open},
    {"requester_submit", does_submit},
    {"requester_submit_many", does_submit},
    {"requester_receive", does_requester_receive},
    {"requester_cancel", does_requester_cancel},
    {"reply_stream_open", does_reply_stream_open},
    {"reply_stream_send", does_reply_stream_send},
    {"reply_stream_end", does_reply_stream_end},
};

static fastmq_status does(struct step *step, void *all)
{
    (void)all;
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(verbs[i].name, step->verb) == 0) {
            return verbs[i].does(step);
        }
    }
    fail("unknown step %s", step->verb);
    return FASTMQ_INTERNAL;
}

static void *begin(void)
{
    current.count = 0;
    return &current;
}

/* The clients last, as what is called may still use them. */
static void end(void *all)
{
    (void)all;
    for (size_t i = current.count; i > 0; i--) {
        end_thing(&current.things[i - 1]);
    }
}

int main(int count, char **arguments)
{
    return run_all(count, arguments, does, begin, end, told);
}
