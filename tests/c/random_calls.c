/* Every call, with arguments drawn at random: handles that are open, closed, NULL, of another type
 * or invented; bytes that are valid, empty, malformed or too long; structs of any size and content;
 * callbacks that call back. Promised is that each call returns a status that exists, that a failure
 * has a sentence and leaves NULL in its out pointer, and that nothing is a bug of the library.
 *
 *     random_calls [SEED]             one run, said step by step
 *     FASTMQ_SOAK_SECONDS=60 ...      as many runs as the time allows
 *
 * A run is one thread, so that its seed repeats it; callbacks on library threads only count.
 */
#include "steps.h"

enum { RUNS = 300, STEPS = 600, SLOTS = 6, DEPTH = 3 };

/* random numbers: SplitMix64 */

static uint64_t state;

static uint64_t draw(void)
{
    uint64_t mixed = (state += UINT64_C(0x9E3779B97F4A7C15));
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94D049BB133111EB);
    return mixed ^ (mixed >> 31);
}

static uint64_t below(uint64_t end)
{
    return draw() % end;
}

static int one_in(uint64_t count)
{
    return below(count) == 0;
}

/* what the run holds: open or closed, never forgotten before its end */

enum type { CLIENT, PUBLISHER, QUEUE, REQUESTER, SUBSCRIPTION, HEADERS, BATCH, STREAM, TYPES };

struct slot {
    void *handle;
    int is_open;
};

static struct slot slots[TYPES][SLOTS];
static uint64_t tokens[SLOTS];
static int depth;
static int is_told;
static uint64_t calls, failures;
static _Atomic uint64_t on_threads;

static void broken(const char *call, const char *what)
{
    printf("# %s: %s (\"%s\")\n", call, what, fastmq_last_error());
    NEED(!"a call has broken a promise");
}

/* A status, and the sentence of a failure. */
static fastmq_status judge(const char *call, fastmq_status status)
{
    calls++;
    if (is_told) {
        printf("# %*s%s: %s\n", 2 * depth, "", call, fastmq_status_name(status));
    }
    if (status == FASTMQ_OK) {
        return status;
    }
    failures++;
    if (strcmp(fastmq_status_name(status), fastmq_status_name(UINT32_MAX)) == 0) {
        broken(call, "a status that does not exist");
    }
    if (status == FASTMQ_INTERNAL) {
        broken(call, "a bug of the library");
    }
    if (fastmq_last_error()[0] == '\0') {
        broken(call, "a failure without a sentence");
    }
    return status;
}

#define JUDGE(call) judge(#call, (call))

/* A handle of this type, mostly: open, or closed, or none, or nonsense. */
static void *any(enum type type)
{
    uint64_t at = below(SLOTS);
    switch (below(64)) {
    case 0: return NULL;
    case 1: return slots[below(TYPES)][at].handle;
    case 2: return (void *)(uintptr_t)draw();
    case 3: return slots[type][at].handle;
    default: break;
    }
    for (int tries = 0; tries < SLOTS && !slots[type][at].is_open; tries++) {
        at = (at + 1) % SLOTS;
    }
    return slots[type][at].handle;
}

static void closed(void *handle)
{
    for (int type = 0; type < TYPES; type++) {
        for (int at = 0; at < SLOTS; at++) {
            if (slots[type][at].handle == handle) {
                slots[type][at].is_open = 0;
            }
        }
    }
}

static void close_any(enum type type, void *handle)
{
    switch (type) {
    case CLIENT: fastmq_close(handle); break;
    case PUBLISHER: fastmq_publisher_close(handle); break;
    case QUEUE: fastmq_queue_close(handle); break;
    case REQUESTER: fastmq_requester_close(handle); break;
    case SUBSCRIPTION: fastmq_unsubscribe(handle); break;
    case HEADERS: fastmq_headers_close(handle); break;
    case BATCH: fastmq_batch_free(handle); break;
    case STREAM: fastmq_reply_stream_close(handle); break;
    default: break;
    }
}

/* Keeps what a call has opened; an open one in its place is closed first. */
static void keep(enum type type, const char *call, fastmq_status status, void *opened)
{
    if ((status == FASTMQ_OK) != (opened != NULL)) {
        broken(call, "its out pointer says something else than its status");
    }
    if (opened == NULL) {
        return;
    }
    struct slot *slot = &slots[type][below(SLOTS)];
    void *before = slot->is_open ? slot->handle : NULL;
    *slot = (struct slot){.handle = opened, .is_open = 1};
    if (before != NULL) {
        close_any(type, before);
    }
}

static const char *const words[] = {
    "a", "a.b", "a.b.c", "a.c", "b", "b.a", "", ".", "a..b", "a.", ".a", "*", "a.*", "a.>", ">",
    "a.>.b", "a.b*", "\xff\xfe", "a b", "a.\xc3\xa9", "group", "x-header",
    "$SYS", "$SYS.>", "$SYS.*.a",
};

/* Bytes that can be read as far as they say; NULL with a size, and sizes beyond the address space,
 * are refused before anybody reads. */
static fastmq_bytes some_bytes(void)
{
    static uint8_t large[70000];
    switch (below(40)) {
    case 0: return bytes(NULL, below(100));
    case 1: return bytes(large, SIZE_MAX - below(100));
    case 2: case 3: return bytes(NULL, 0);
    case 5: case 6: return bytes(large, below(sizeof large));
    case 7: large[below(sizeof large)] = (uint8_t)draw(); return bytes(large, below(300));
    default: return text(words[below(sizeof words / sizeof *words)]);
    }
}

static fastmq_bytes subject(void)
{
    return one_in(24) ? some_bytes() : text(words[below(6)]);
}

static fastmq_bytes pattern(void)
{
    return one_in(24) ? some_bytes() : text(words[one_in(2) ? below(6) : 11 + below(4)]);
}

static uint64_t patience(void)
{
    return one_in(4) ? below(MILLISECOND) : 0;
}

/* A struct with zeros behind it: a caller may say that its struct is larger. */
#define ROOMY(type) union { type is; uint8_t room[2 * sizeof(type)]; }

static uint32_t struct_size(size_t right)
{
    return one_in(24) ? (uint32_t)below(2 * right) : (uint32_t)right;
}

static uint32_t choice(uint32_t end)
{
    return one_in(48) ? (uint32_t)draw() : (uint32_t)below(end);
}

typedef ROOMY(fastmq_outgoing) roomy_outgoing;

static roomy_outgoing some_outgoing(void)
{
    roomy_outgoing roomy = {0};
    fastmq_outgoing message = {0};
    message.struct_size = struct_size(sizeof message);
    message.subject = one_in(3) ? bytes(NULL, 0) : subject();
    message.payload = some_bytes();
    message.reply_to = one_in(4) ? subject() : bytes(NULL, 0);
    message.key = one_in(4) ? some_bytes() : bytes(NULL, 0);
    message.headers = one_in(3) ? any(HEADERS) : NULL;
    message.token = one_in(2) ? draw() : below(SLOTS);
    message.ttl_ns = one_in(4) ? draw() >> below(64) : 0;
    message.flags = one_in(32) ? (uint32_t)draw() : one_in(4) ? FASTMQ_OUTGOING_KEEP_LAST : 0;
    message.priority = one_in(32) ? (uint32_t)draw() : 0;
    message.reserved = one_in(32) ? (uint32_t)draw() : 0;
    roomy.is = message;
    return roomy;
}

/* What a batch or a callback shows must be readable. */
static void look_at(const fastmq_message *message)
{
    const fastmq_bytes fields[] = {message->subject, message->payload, message->reply_to,
                                   message->headers, message->key};
    volatile uint8_t sum = 0;
    for (size_t at = 0; at < sizeof fields / sizeof *fields; at++) {
        for (size_t byte = 0; byte < fields[at].size; byte++) {
            sum = (uint8_t)(sum + fields[at].data[byte]);
        }
    }
    if (message->flags & FASTMQ_MESSAGE_REQUEST) {
        tokens[below(SLOTS)] = message->token;
    }
    size_t position = 0;
    fastmq_bytes name, value;
    while (fastmq_headers_next(message->headers, &position, &name, &value) == FASTMQ_OK) {
        sum = (uint8_t)(sum + name.size + value.size);
    }
}

static void step(void);

static void on_message(const fastmq_message *message, void *context)
{
    if (context != NULL) {
        atomic_fetch_add(&on_threads, 1); /* Another thread: the run's state is not for it. */
        return;
    }
    look_at(message);
    if (one_in(2) && message->token != 0) {
        JUDGE(fastmq_reply(any(CLIENT), message->token, some_bytes()));
    }
    if (depth < DEPTH) {
        depth++;
        for (uint64_t more = below(3); more > 0; more--) {
            step();
        }
        depth--;
    }
}

/* steps: each is one call */

static void try_open_client(void)
{
    ROOMY(fastmq_options) roomy = {0};
    fastmq_options *options = &roomy.is;
    options->struct_size = struct_size(sizeof *options);
    options->memory_max = one_in(4) ? draw() >> below(64) : 0;
    options->queue_capacity = one_in(2) ? UINT64_C(1) << below(24) : 0;
    options->payload_max = one_in(4) ? draw() >> below(64) : 0;
    options->wait = choice(4);
    options->threads_max = (uint32_t)below(3);
    options->close_timeout_ns = below(MILLISECOND);
    options->flags = one_in(32) ? (uint32_t)draw() : 0;
    fastmq_client *opened = NULL;
    fastmq_status status = JUDGE(fastmq_open(one_in(4) ? NULL : options, &opened));
    keep(CLIENT, "fastmq_open", status, opened);
}

static void try_open_queue(void)
{
    ROOMY(fastmq_queue_options) roomy = {0};
    fastmq_queue_options *options = &roomy.is;
    options->struct_size = struct_size(sizeof *options);
    options->policy = choice(4);
    options->capacity = one_in(2) ? UINT64_C(1) << below(24) : draw() >> below(64);
    options->wait = choice(4);
    fastmq_queue *opened = NULL;
    fastmq_status status =
        JUDGE(fastmq_queue_open(any(CLIENT), one_in(4) ? NULL : options, &opened));
    keep(QUEUE, "fastmq_queue_open", status, opened);
}

static void try_open_publisher(void)
{
    fastmq_publisher *opened = NULL;
    fastmq_status status = JUDGE(fastmq_publisher_open(any(CLIENT), subject(), &opened));
    keep(PUBLISHER, "fastmq_publisher_open", status, opened);
}

static void try_open_requester(void)
{
    ROOMY(fastmq_requester_options) roomy = {0};
    fastmq_requester_options *options = &roomy.is;
    options->struct_size = struct_size(sizeof *options);
    options->in_flight_max = one_in(2) ? (uint32_t)below(4) : (uint32_t)(draw() >> below(32));
    options->subject = one_in(2) ? subject() : bytes(NULL, 0);
    options->wait = choice(4);
    fastmq_requester *opened = NULL;
    fastmq_status status =
        JUDGE(fastmq_requester_open(any(CLIENT), one_in(4) ? NULL : options, &opened));
    keep(REQUESTER, "fastmq_requester_open", status, opened);
}

static void try_subscribe(void)
{
    static int thread_context;
    ROOMY(fastmq_subscribe_options) roomy = {0};
    fastmq_subscribe_options *options = &roomy.is;
    options->struct_size = struct_size(sizeof *options);
    options->delivery = choice(4);
    options->group = one_in(4) ? some_bytes() : bytes(NULL, 0);
    options->group_mode = one_in(4) ? choice(2) : 0;
    options->weight = one_in(8) ? choice(1002) : 0;
    options->queue = one_in(2) ? any(QUEUE) : NULL;
    options->policy = one_in(4) ? choice(4) : 0;
    options->tag = draw();
    options->flags = one_in(2) ? choice(2) : 0;
    options->on_message = one_in(4) ? NULL : on_message;
    options->context = options->delivery == FASTMQ_DELIVERY_THREAD ? &thread_context : NULL;
    fastmq_subscription *opened = NULL;
    fastmq_status status =
        JUDGE(fastmq_subscribe(any(CLIENT), pattern(), one_in(16) ? NULL : options, &opened));
    keep(SUBSCRIPTION, "fastmq_subscribe", status, opened);
}

static void try_open_headers(void)
{
    fastmq_headers *opened = NULL;
    fastmq_status status = JUDGE(fastmq_headers_open(&opened));
    keep(HEADERS, "fastmq_headers_open", status, opened);
}

static void try_change_headers(void)
{
    if (one_in(8)) {
        fastmq_headers_clear(any(HEADERS));
    } else {
        JUDGE(fastmq_headers_add(any(HEADERS), some_bytes(), some_bytes()));
    }
}

static void try_read_headers(void)
{
    fastmq_bytes value = {0}, name = {0};
    size_t position = one_in(2) ? 0 : (size_t)draw();
    JUDGE(fastmq_headers_get(some_bytes(), some_bytes(), one_in(8) ? NULL : &value));
    JUDGE(fastmq_headers_next(some_bytes(), one_in(8) ? NULL : &position, &name,
                              one_in(8) ? NULL : &value));
}

static void try_publish(void)
{
    roomy_outgoing message = some_outgoing();
    /* The last has room behind it; the others are followed by a struct. */
    fastmq_outgoing many[4] = {some_outgoing().is, some_outgoing().is, some_outgoing().is};
    size_t accepted = 99;
    switch (below(7)) {
    case 3: JUDGE(fastmq_forget_last(any(CLIENT), subject())); break;
    case 0: JUDGE(fastmq_publish_message(any(CLIENT), one_in(16) ? NULL : &message.is)); break;
    case 1:
        JUDGE(fastmq_publish_batch(any(CLIENT), one_in(16) ? NULL : many, below(4), &accepted));
        if (accepted > 3 && accepted != 99) {
            broken("fastmq_publish_batch", "it accepted more than there were");
        }
        break;
    case 2: JUDGE(fastmq_publish_wait(any(CLIENT), &message.is, patience())); break;
    default: JUDGE(fastmq_publish(any(CLIENT), subject(), some_bytes())); break;
    }
}

static void try_publish_by_handle(void)
{
    roomy_outgoing message = some_outgoing();
    fastmq_bytes many[3] = {some_bytes(), some_bytes(), some_bytes()};
    size_t accepted = 99;
    void *publisher = any(PUBLISHER);
    switch (below(6)) {
    case 0: JUDGE(fastmq_publisher_publish_message(publisher, one_in(16) ? NULL : &message.is)); break;
    case 1:
        JUDGE(fastmq_publisher_publish_batch(publisher, one_in(16) ? NULL : many, below(4),
                                             one_in(16) ? NULL : &accepted));
        break;
    case 2: JUDGE(fastmq_publisher_publish_wait(publisher, some_bytes(), patience())); break;
    default: JUDGE(fastmq_publisher_publish(publisher, some_bytes())); break;
    }
}

/* A claim may stay open, and be committed or abandoned by any later step or by none. */
static void try_claim(void)
{
    uint8_t none = 0, *room = &none;
    void *publisher = any(PUBLISHER);
    size_t size = one_in(8) ? draw() >> below(64) : below(20000);
    fastmq_status status = FASTMQ_OK;
    switch (below(8)) {
    case 0: fastmq_publisher_abandon(publisher); return;
    case 1: JUDGE(fastmq_publisher_commit(publisher, below(20000))); return;
    case 2: JUDGE(fastmq_publisher_claim(publisher, size, NULL)); return;
    default: status = JUDGE(fastmq_publisher_claim(publisher, size, &room)); break;
    }
    if ((status == FASTMQ_OK) != (room != NULL)) {
        broken("fastmq_publisher_claim", "its out pointer says something else than its status");
    }
    if (status == FASTMQ_OK) {
        memset(room, 7, size);
        if (!one_in(4)) {
            JUDGE(fastmq_publisher_commit(publisher, one_in(8) ? draw() : below(size + 1)));
        }
    }
}

static void try_receive(void)
{
    fastmq_batch *batch = NULL;
    fastmq_status status;
    if (one_in(3)) {
        status = JUDGE(fastmq_requester_receive(any(REQUESTER), choice(5), patience(), &batch));
    } else {
        status = JUDGE(fastmq_receive(any(QUEUE), choice(5), patience(), &batch));
    }
    keep(BATCH, "receive", status, batch);
}

static void try_use_batch(void)
{
    size_t count = 99;
    struct slot *slot = &slots[BATCH][below(SLOTS)];
    void *batch = one_in(4) ? any(BATCH) : slot->handle;
    const fastmq_message *messages = fastmq_batch_messages(batch, &count);
    if (messages == NULL && count != 0) {
        broken("fastmq_batch_messages", "no messages, but a count");
    }
    for (size_t at = 0; at < count; at++) {
        look_at(&messages[at]);
    }
    if (one_in(4)) {
        fastmq_batch *copy = NULL;
        fastmq_status status = JUDGE(fastmq_batch_detach(batch, &copy));
        if (status == FASTMQ_OK) {
            closed(batch);
        }
        keep(BATCH, "fastmq_batch_detach", status, copy);
    }
}

static void try_request(void)
{
    roomy_outgoing message = some_outgoing();
    char reply[300];
    size_t size = 0, capacity = below(sizeof reply + 1);
    fastmq_batch *batch = NULL;
    switch (below(3)) {
    case 0: {
        fastmq_status status =
            JUDGE(fastmq_request(any(CLIENT), &message.is, patience(), &batch));
        keep(BATCH, "fastmq_request", status, batch);
        break;
    }
    case 1:
        JUDGE(fastmq_request_into(any(CLIENT), subject(), some_bytes(), patience(),
                                  one_in(8) ? NULL : reply, capacity, one_in(8) ? NULL : &size));
        break;
    default:
        JUDGE(fastmq_requester_request_into(any(REQUESTER), some_bytes(), patience(),
                                            one_in(8) ? NULL : reply, capacity,
                                            one_in(8) ? NULL : &size));
        break;
    }
}

static void try_submit(void)
{
    roomy_outgoing message = some_outgoing();
    void *requester = any(REQUESTER);
    switch (below(5)) {
    case 0: JUDGE(fastmq_requester_submit(requester, some_bytes(), below(8), patience())); break;
    case 1: JUDGE(fastmq_requester_submit_message(requester, &message.is, patience())); break;
    case 2: JUDGE(fastmq_requester_cancel(requester, below(8))); break;
    default:
        JUDGE(fastmq_requester_submit_to(requester, subject(), some_bytes(), below(8),
                                         one_in(8) ? draw() : patience()));
        break;
    }
    if (one_in(4)) {
        (void)fastmq_requester_in_flight(requester);
    }
}

static void try_reply(void)
{
    roomy_outgoing message = some_outgoing();
    uint64_t token = one_in(8) ? draw() : tokens[below(SLOTS)];
    if (one_in(2)) {
        JUDGE(fastmq_reply(any(CLIENT), token, some_bytes()));
    } else {
        JUDGE(fastmq_reply_message(any(CLIENT), token, one_in(16) ? NULL : &message.is, choice(50)));
    }
}

static void try_ask_many(void)
{
    roomy_outgoing message = some_outgoing();
    ROOMY(fastmq_many_options) roomy = {0};
    fastmq_many_options *options = &roomy.is;
    fastmq_batch *batch = NULL;
    uint32_t answers_max = one_in(4) ? FASTMQ_ANSWERS_ALL : choice(4);
    switch (below(4)) {
    case 0: JUDGE(fastmq_requester_grant(any(REQUESTER), below(8), choice(8))); break;
    case 1: {
        fastmq_status status = JUDGE(fastmq_request_many(any(CLIENT), &message.is, answers_max,
                                                         patience(), &batch));
        keep(BATCH, "fastmq_request_many", status, batch);
        break;
    }
    default:
        options->struct_size = struct_size(sizeof *options);
        options->answers_max = answers_max;
        options->credit = one_in(8) ? (uint32_t)draw() : choice(6);
        options->credit_mode = choice(2);
        options->gap_ns = one_in(2) ? patience() : 0;
        JUDGE(fastmq_requester_submit_many(any(REQUESTER), &message.is, patience(),
                                           one_in(8) ? NULL : options));
        break;
    }
}

static void try_stream(void)
{
    roomy_outgoing message = some_outgoing();
    uint64_t replies = 0;
    void *stream = any(STREAM);
    switch (below(8)) {
    case 0:
    case 1: {
        uint64_t token = one_in(8) ? draw() : tokens[below(SLOTS)];
        fastmq_reply_stream *opened = NULL;
        fastmq_status status = JUDGE(fastmq_reply_stream_open(any(CLIENT), token, &opened));
        keep(STREAM, "fastmq_reply_stream_open", status, opened);
        break;
    }
    case 2: JUDGE(fastmq_reply_stream_credit(stream, one_in(8) ? NULL : &replies)); break;
    case 3:
        JUDGE(fastmq_reply_stream_send_message(stream, one_in(16) ? NULL : &message.is));
        break;
    case 4: JUDGE(fastmq_reply_stream_send_wait(stream, some_bytes(), patience())); break;
    case 5: JUDGE(fastmq_reply_stream_end(stream, choice(50))); break;
    default: JUDGE(fastmq_reply_stream_send(stream, some_bytes())); break;
    }
}

static void try_loop(void)
{
    void *client = any(CLIENT);
    uint32_t ready = 0;
    switch (below(5)) {
    case 0: (void)fastmq_fd(client); break;
    case 1: (void)fastmq_next_deadline(client); break;
    case 2: (void)fastmq_queue_fd(any(QUEUE)); break;
    case 3: (void)fastmq_requester_fd(any(REQUESTER)); break;
    default:
        JUDGE(fastmq_dispatch(client, choice(20), below(MILLISECOND), one_in(4) ? NULL : &ready));
        break;
    }
}

static void try_statistics(void)
{
    ROOMY(fastmq_client_statistics) client = {.is.struct_size = struct_size(sizeof client.is)};
    ROOMY(fastmq_queue_statistics) queue = {.is.struct_size = struct_size(sizeof queue.is)};
    ROOMY(fastmq_subscription_statistics) subscription = {
        .is.struct_size = struct_size(sizeof subscription.is)};
    switch (below(5)) {
    case 0: JUDGE(fastmq_client_statistics_read(any(CLIENT), one_in(8) ? NULL : &client.is)); break;
    case 1: JUDGE(fastmq_queue_statistics_read(any(QUEUE), one_in(8) ? NULL : &queue.is)); break;
    case 2:
        JUDGE(fastmq_subscription_statistics_read(any(SUBSCRIPTION),
                                                  one_in(8) ? NULL : &subscription.is));
        break;
    case 3: (void)fastmq_subscription_id(any(SUBSCRIPTION)); break;
    default: (void)fastmq_subscription_queue(any(SUBSCRIPTION)); break;
    }
}

static void try_close_one(void)
{
    enum type type = (enum type)below(TYPES);
    if (type == CLIENT && !one_in(16)) {
        return; /* Its end is the end of most others. */
    }
    void *handle = any(type);
    closed(handle);
    close_any(type, handle);
}

static void try_drain(void)
{
    if (one_in(8)) {
        JUDGE(fastmq_drain(any(CLIENT), patience()));
    }
}

static void step(void)
{
    static void (*const steps[])(void) = {
        try_open_client, try_open_queue, try_open_queue, try_open_publisher, try_open_requester, try_subscribe, try_subscribe,
        try_subscribe, try_open_headers, try_change_headers, try_read_headers, try_publish, try_publish, try_publish, try_publish,
        try_publish_by_handle, try_publish_by_handle, try_publish_by_handle, try_claim, try_claim, try_receive, try_receive, try_receive,
        try_use_batch, try_use_batch, try_request, try_request, try_submit, try_submit, try_ask_many,
        try_ask_many, try_stream, try_stream, try_stream, try_reply, try_reply, try_loop, try_loop,
        try_statistics, try_close_one, try_close_one, try_drain,
    };
    steps[below(sizeof steps / sizeof *steps)]();
}

static void run(uint64_t seed)
{
    state = seed;
    memset(slots, 0, sizeof slots);
    for (int opened = 0; opened < 2; opened++) {
        try_open_client();
    }
    for (int number = 0; number < STEPS; number++) {
        step();
    }
    for (int type = TYPES - 1; type >= 0; type--) {
        for (int at = 0; at < SLOTS; at++) {
            if (slots[type][at].is_open) {
                slots[type][at].is_open = 0;
                close_any((enum type)type, slots[type][at].handle);
            }
        }
    }
}

static uint64_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

int main(int argc, char **argv)
{
    check_begin();
    const char *soak = getenv("FASTMQ_SOAK_SECONDS");
    uint64_t end = soak != NULL ? now_s() + strtoull(soak, NULL, 10) : 0;
    if (argc > 1) {
        is_told = 1;
        run(strtoull(argv[1], NULL, 0));
        return check_end();
    }
    uint64_t seed = soak != NULL ? (uint64_t)time(NULL) << 20 : 1;
    uint64_t runs = 0;
    while (soak != NULL ? now_s() < end : runs < RUNS) {
        alarm(CHECK_WATCHDOG_SECONDS);
        printf("# seed %llu\n", (unsigned long long)seed);
        run(seed++);
        runs++;
    }
    printf("# %llu runs, %llu calls, %llu refused, %llu callbacks on threads\n",
           (unsigned long long)runs, (unsigned long long)calls, (unsigned long long)failures,
           (unsigned long long)on_threads);
    CHECK(calls > runs * STEPS / 2 && failures > runs && failures < calls,
          "calls with any arguments return statuses, and some do something");
    return check_end();
}
