/* Structs that the caller fills: sizes older and newer than the library, unknown values.
 *
 * Decided here: a `struct_size` beyond any plausible struct (above 4 KiB) is INVALID without its
 * tail being read, since that tail is not ours to read.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

/* What a newer program would pass: the struct of today and 16 bytes that this library ignores. */
enum { NEWER = 16 };

typedef fastmq_status (*try_call)(fastmq_client *client, void *options);

static fastmq_status try_open(fastmq_client *client, void *options)
{
    fastmq_client *another = NULL;
    (void)client;
    fastmq_status status = fastmq_open(options, &another);
    fastmq_close(another);
    return status;
}

static fastmq_status try_queue(fastmq_client *client, void *options)
{
    fastmq_queue *queue = NULL;
    fastmq_status status = fastmq_queue_open(client, options, &queue);
    fastmq_queue_close(queue);
    return status;
}

static fastmq_status try_subscribe(fastmq_client *client, void *options)
{
    fastmq_subscription *subscription = NULL;
    fastmq_status status = fastmq_subscribe(client, text("options"), options, &subscription);
    fastmq_unsubscribe(subscription);
    return status;
}

static fastmq_status try_requester(fastmq_client *client, void *options)
{
    fastmq_requester *requester = NULL;
    fastmq_status status = fastmq_requester_open(client, options, &requester);
    fastmq_requester_close(requester);
    return status;
}

static fastmq_status try_many(fastmq_client *client, void *options)
{
    fastmq_requester *requester = open_requester(client, "options.nobody", 0);
    fastmq_outgoing request = outgoing("", text("?"));
    fastmq_status status = fastmq_requester_submit_many(requester, &request, 0, options);
    fastmq_requester_close(requester);
    return status;
}

/* Nobody is there, so that the options are all that it can be about. */
static fastmq_status try_connect(fastmq_client *client, void *options)
{
    fastmq_client *remote = NULL;
    (void)client;
    fastmq_status status = fastmq_connect("unix:/nowhere/at/all", options, &remote);
    fastmq_close(remote);
    return status == FASTMQ_UNAVAILABLE ? FASTMQ_OK : status;
}

static fastmq_status try_listen(fastmq_client *client, void *options)
{
    fastmq_server *server = NULL;
    fastmq_status status = fastmq_listen(client, "tcp://127.0.0.1:0", options, &server);
    fastmq_server_close(server, 0);
    return status;
}

static fastmq_status try_publish(fastmq_client *client, void *options)
{
    fastmq_outgoing *message = options;
    message->subject = text("options");
    return fastmq_publish_message(client, message);
}

static fastmq_status try_thread_setup(fastmq_client *client, void *options)
{
    (void)client;
    return fastmq_thread_setup(options);
}

static fastmq_status try_client_figures(fastmq_client *client, void *options)
{
    return fastmq_client_statistics_read(client, options);
}

struct subject_of_test {
    const char *name;
    try_call call;
    uint32_t size;
    uint32_t first; /* the size of its first published version */
    int is_output;
};

static const struct subject_of_test structs[] = {
    {"fastmq_options", try_open, sizeof(fastmq_options), 48, 0},
    {"fastmq_queue_options", try_queue, sizeof(fastmq_queue_options), 24, 0},
    {"fastmq_subscribe_options", try_subscribe, sizeof(fastmq_subscribe_options), 56, 0},
    {"fastmq_requester_options", try_requester, sizeof(fastmq_requester_options), 32, 0},
    {"fastmq_many_options", try_many, sizeof(fastmq_many_options), 24, 0},
    {"fastmq_connect_options", try_connect, sizeof(fastmq_connect_options), 104, 0},
    {"fastmq_listen_options", try_listen, sizeof(fastmq_listen_options), 80, 0},
    {"fastmq_outgoing", try_publish, sizeof(fastmq_outgoing), 104, 0},
    {"fastmq_thread_options", try_thread_setup, sizeof(fastmq_thread_options), 40, 0},
    {"fastmq_client_statistics", try_client_figures, sizeof(fastmq_client_statistics), 136, 1},
};

/* Calls with `struct_size` and one non-zero byte at `mark` (0: none). */
static fastmq_status call_with(fastmq_client *client, const struct subject_of_test *tested,
                               uint32_t struct_size, uint32_t mark)
{
    _Alignas(8) uint8_t space[256] = {0};
    memcpy(space, &struct_size, sizeof struct_size);
    if (mark != 0) {
        space[mark] = 1;
    }
    return tested->call(client, space);
}

static void sizes(fastmq_client *client)
{
    char name[160];
    for (size_t i = 0; i < sizeof structs / sizeof structs[0]; i++) {
        const struct subject_of_test *tested = &structs[i];
        uint32_t size = tested->size;
        snprintf(name, sizeof name, "%s: today's size is accepted", tested->name);
        CHECK_STATUS(call_with(client, tested, size, 0), FASTMQ_OK, name);
        snprintf(name, sizeof name, "%s: size 0 is INVALID", tested->name);
        CHECK_STATUS(call_with(client, tested, 0, 0), FASTMQ_INVALID, name);
        snprintf(name, sizeof name, "%s: a size below the first version is INVALID", tested->name);
        CHECK_STATUS(call_with(client, tested, tested->first - 8, 0), FASTMQ_INVALID, name);
        snprintf(name, sizeof name, "%s: the size of the first version is accepted", tested->name);
        CHECK_STATUS(call_with(client, tested, tested->first, 0), FASTMQ_OK, name);
        snprintf(name, sizeof name, "%s: a larger size is accepted", tested->name);
        CHECK_STATUS(call_with(client, tested, size + NEWER, 0), FASTMQ_OK, name);
        snprintf(name, sizeof name, "%s: an implausible size is INVALID", tested->name);
        CHECK_STATUS(call_with(client, tested, UINT32_MAX, 0), FASTMQ_INVALID, name);
        if (!tested->is_output) {
            snprintf(name, sizeof name, "%s: a non-zero tail is INVALID", tested->name);
            CHECK_STATUS(call_with(client, tested, size + NEWER, size + NEWER - 1),
                         FASTMQ_INVALID, name);
        }
    }
    call_with(client, &structs[0], 0, 0);
    CHECK(strstr(fastmq_last_error(), "struct_size") != NULL, "the sentence names struct_size");
}

static void statistics_stay_inside(fastmq_client *client)
{
    struct {
        fastmq_client_statistics figures;
        uint64_t canary;
    } space;
    memset(&space, 0xa5, sizeof space);
    space.figures.struct_size = sizeof space.figures;
    NEED(fastmq_client_statistics_read(client, &space.figures) == FASTMQ_OK);
    CHECK(space.canary == UINT64_C(0xa5a5a5a5a5a5a5a5), "only `struct_size` bytes are written");
    CHECK_NUMBER(space.figures.struct_size, sizeof space.figures, "`struct_size` is left alone");
}

static void unknown_values(fastmq_client *client)
{
    fastmq_queue_options queue = {.struct_size = sizeof queue, .policy = 99};
    CHECK_STATUS(try_queue(client, &queue), FASTMQ_INVALID, "an unknown policy is INVALID");
    CHECK(strstr(fastmq_last_error(), "99") != NULL, "the sentence has the value in it");
    queue.policy = FASTMQ_POLICY_BACKPRESSURE;
    queue.wait = 99;
    CHECK_STATUS(try_queue(client, &queue), FASTMQ_INVALID, "an unknown wait profile is INVALID");
    queue.wait = 0;
    queue.reserved = 1;
    CHECK_STATUS(try_queue(client, &queue), FASTMQ_INVALID, "a reserved field must be 0");

    fastmq_options options = {.struct_size = sizeof options, .flags = 1};
    CHECK_STATUS(try_open(NULL, &options), FASTMQ_INVALID, "an unknown flag is INVALID");
    options.flags = 0;
    options.wait = 99;
    CHECK_STATUS(try_open(NULL, &options), FASTMQ_INVALID, "so is a client's wait profile");

    fastmq_thread_options thread = {.struct_size = sizeof thread, .scheduling = 99};
    CHECK_STATUS(fastmq_thread_setup(&thread), FASTMQ_INVALID, "an unknown scheduling is INVALID");
    thread.scheduling = 0;
    thread.reserved = 1;
    CHECK_STATUS(fastmq_thread_setup(&thread), FASTMQ_INVALID, "a reserved field must be 0");

    fastmq_subscribe_options subscribing = {.struct_size = sizeof subscribing, .delivery = 99};
    CHECK_STATUS(try_subscribe(client, &subscribing), FASTMQ_INVALID,
                 "an unknown delivery is INVALID");
    for (uint32_t delivery = FASTMQ_DELIVERY_THREAD; delivery <= FASTMQ_DELIVERY_INLINE;
         delivery++) {
        subscribing.delivery = delivery;
        CHECK_STATUS(try_subscribe(client, &subscribing), FASTMQ_INVALID,
                     "a delivery by callback without a callback is INVALID");
    }
    subscribing.delivery = FASTMQ_DELIVERY_QUEUE;
    subscribing.flags = 2;
    CHECK_STATUS(try_subscribe(client, &subscribing), FASTMQ_INVALID, "so is an unknown flag");
    subscribing.flags = 0;
    subscribing.policy = 99;
    CHECK_STATUS(try_subscribe(client, &subscribing), FASTMQ_INVALID, "and an unknown policy");
    subscribing.policy = 0;
    subscribing.group = text("a group.with spaces");
    CHECK_STATUS(try_subscribe(client, &subscribing), FASTMQ_INVALID,
                 "a group name with a space is INVALID");
    char name[256];
    memset(name, 'g', sizeof name);
    subscribing.group = bytes(name, 255);
    CHECK_STATUS(try_subscribe(client, &subscribing), FASTMQ_OK, "255 bytes are a name");
    subscribing.group = bytes(name, 256);
    CHECK_STATUS(try_subscribe(client, &subscribing), FASTMQ_INVALID, "256 bytes are none");

    fastmq_outgoing message = outgoing("options", text("x"));
    message.flags = 2;
    CHECK_STATUS(try_publish(client, &message), FASTMQ_INVALID, "an unknown flag is INVALID");
    message.flags = 0;
    message.priority = 3;
    CHECK_STATUS(try_publish(client, &message), FASTMQ_INVALID, "priority is 0 until it exists");
    message.priority = 0;
    message.reply_to = text("a..b");
    CHECK_STATUS(try_publish(client, &message), FASTMQ_INVALID,
                 "a malformed reply address is INVALID");
    message.reply_to = text("a.*");
    CHECK_STATUS(try_publish(client, &message), FASTMQ_INVALID, "so is one with a wildcard");

    fastmq_requester_options asking = {.struct_size = sizeof asking, .in_flight_max = 65536};
    CHECK_STATUS(try_requester(client, &asking), FASTMQ_INVALID,
                 "more than 65,535 requests in flight are INVALID");
    asking.in_flight_max = 65535;
    CHECK_STATUS(try_requester(client, &asking), FASTMQ_OK, "65,535 are fine");
    CHECK_STATUS(fastmq_reply_message(client, 1, &message, 9999), FASTMQ_INVALID,
                 "an unknown status in a reply is INVALID");
}

int main(void)
{
    check_begin();
    fastmq_client *client = open_client();
    sizes(client);
    statistics_stay_inside(client);
    unknown_values(client);
    fastmq_close(client);
    return check_end();
}
