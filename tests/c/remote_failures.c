/* Processes, when something is wrong: a server that is killed, that refuses, that speaks a newer
 * protocol; clients and handles that are closed while something is under way. Everything that was
 * asked has one fate, and every call says what is wrong.
 *
 * The server that is killed is a child that runs this program anew.
 */
/* valgrind */
#define _GNU_SOURCE
#include "served.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { STUCK = 5 };

static fastmq_status request(fastmq_client *client, const char *subject)
{
    fastmq_outgoing question = outgoing(subject, text("?"));
    fastmq_batch *reply = NULL;
    fastmq_status status = fastmq_request(client, &question, PATIENCE, &reply);
    fastmq_batch_free(reply);
    return status;
}

/* The next answer of a requester must have this status; which request it is of. */
static uint64_t next_fate(fastmq_requester *requester, fastmq_status expected)
{
    fastmq_batch *batch = NULL;
    size_t count = 0;
    NEED(fastmq_requester_receive(requester, 1, PATIENCE, &batch) == FASTMQ_OK);
    const fastmq_message *fate = fastmq_batch_messages(batch, &count);
    uint64_t token = fate->token;
    if (fate->status != expected) {
        printf("# got %s\n", fastmq_status_name(fate->status));
        token = UINT64_MAX;
    }
    fastmq_batch_free(batch);
    return token;
}

/* a server that is killed */

static void count_kept(const fastmq_message *message, void *context)
{
    *(uint32_t *)context += number_of(message) < 1000;
}

struct counted {
    fastmq_client *client;
    uint32_t kept;
};

static void tell_kept(const fastmq_message *message, void *context)
{
    struct counted *counted = context;
    fastmq_reply(counted->client, message->token, bytes(&counted->kept, sizeof counted->kept));
}

/* The child: counts `kept` and tells how many, and answers nothing of what comes to `stuck`, but
 * says on `stuck.now` how many it has. */
static _Noreturn void be_the_server(const char *url)
{
    struct counted counted = {open_client(), 0};
    fastmq_server *server = NULL;
    uint32_t stuck = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    subscribe_call(counted.client, "kept", FASTMQ_DELIVERY_INLINE, count_kept, &counted.kept);
    subscribe_call(counted.client, "kept.count", FASTMQ_DELIVERY_INLINE, tell_kept, &counted);
    fastmq_queue *queue = fastmq_subscription_queue(subscribe(counted.client, "stuck"));
    NEED(fastmq_listen(counted.client, url, NULL, &server) == FASTMQ_OK);
    NEED(write(STDOUT_FILENO, "\n", 1) == 1);
    for (;;) {
        fastmq_batch *batch = NULL;
        size_t count = 0;
        NEED(fastmq_receive(queue, 0, FASTMQ_FOREVER, &batch) == FASTMQ_OK);
        fastmq_batch_messages(batch, &count);
        stuck += (uint32_t)count;
        fastmq_batch_free(batch);
        NEED(publish_number(counted.client, "stuck.now", stuck) == FASTMQ_OK);
    }
}

static pid_t start_server(const char *program, const char *url)
{
    int ends[2];
    char byte = 0;
    NEED(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, url, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    /* It says so when it listens. */
    NEED(child > 0 && read(ends[0], &byte, 1) == 1);
    close(ends[0]);
    return child;
}

static void kill_server(pid_t child)
{
    int status = 0;
    NEED(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
}

struct asking {
    fastmq_client *client;
    fastmq_status status;
};

static void *ask_and_wait(void *context)
{
    struct asking *asking = context;
    asking->status = request(asking->client, "stuck");
    return NULL;
}

static void a_server_is_killed_and_comes_back(const char *program)
{
    char socket[64], url[80];
    struct told told = TOLD_INIT;
    fastmq_client *remote = NULL;
    snprintf(socket, sizeof socket, "/tmp/fastmq-killed-c-%d.sock", (int)getpid());
    snprintf(url, sizeof url, "unix:%s", socket);
    pid_t child = start_server(program, url);
    fastmq_connect_options options = telling(&told);
    /* Room for three publishes of 100 bytes and no more. */
    options.store_max = 512;
    NEED(fastmq_connect(url, &options, &remote) == FASTMQ_OK);
    fastmq_requester *requester = open_requester(remote, "stuck", 0);
    fastmq_subscription *stuck = subscribe(remote, "stuck.now");
    struct asking asking = {remote, FASTMQ_OK};
    pthread_t thread = start_thread(ask_and_wait, &asking);
    for (uint64_t i = 0; i < STUCK; i++) {
        NEED(fastmq_requester_submit(requester, text("?"), i, FASTMQ_FOREVER) == FASTMQ_OK);
    }
    while (next_number(stuck) < STUCK + 1) {
    }

    kill_server(child);
    uint64_t fates = 0;
    for (int i = 0; i < STUCK; i++) {
        uint64_t token = next_fate(requester, FASTMQ_DISCONNECTED);
        fates |= token < STUCK ? UINT64_C(1) << token : UINT64_MAX;
    }
    CHECK_NUMBER(fates, (1 << STUCK) - 1, "each request that was open is DISCONNECTED, once");
    NEED(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(asking.status, FASTMQ_DISCONNECTED, "so is one that a thread waits for");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_DISCONNECTED], 1), "the end is an event");
    CHECK(last_event(&told).status != FASTMQ_CLOSED && told.detail[0] != '\0',
          "which says why");
    CHECK_STATUS(request(remote, "stuck"), FASTMQ_UNAVAILABLE, "then a request is UNAVAILABLE");
    CHECK_STATUS(fastmq_requester_submit(requester, text("?"), 9, PATIENCE), FASTMQ_UNAVAILABLE,
                 "that of a requester, too");
    uint32_t kept = 0;
    fastmq_status status = FASTMQ_OK;
    while (kept < 100 && (status = publish_number(remote, "kept", kept)) == FASTMQ_OK) {
        kept++;
    }
    CHECK(kept > 0 && kept < 100 && status == FASTMQ_AGAIN,
          "publishes are kept up to store_max, then they are AGAIN");

    child = start_server(program, url);
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], 2), "the client comes back");
    CHECK_NUMBER(last_event(&told).flags, FASTMQ_EVENT_AGAIN | FASTMQ_EVENT_OTHER_INSTANCE,
                 "to a server that was started anew");
    uint32_t arrived = 0;
    size_t size = 0;
    do {
        /* BUSY: what was kept goes first. */
        status = fastmq_request_into(remote, text("kept.count"), text(""), PATIENCE, &arrived,
                                     sizeof arrived, &size);
    } while (status == FASTMQ_BUSY);
    NEED(status == FASTMQ_OK);
    CHECK_NUMBER(arrived, kept, "what was kept has arrived, once");
    NEED(fastmq_requester_submit(requester, text("?"), 10, FASTMQ_FOREVER) == FASTMQ_OK);
    CHECK_NUMBER(next_number(stuck), 1, "and requests and subscriptions go on");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(stuck);
    fastmq_close(remote);
    kill_server(child);
    unlink(socket);
}

/* several servers */

static void another_server_is_taken(void)
{
    struct served first, second;
    struct told told = TOLD_INIT;
    fastmq_client *remote = NULL;
    char urls[256];
    fastmq_listen_options listen = {.struct_size = sizeof listen};
    listen.name = text("first");
    serve(&first, &listen);
    listen.name = text("second");
    serve(&second, &listen);
    snprintf(urls, sizeof urls, "unix:/nowhere/at/all, %s, %s", first.url[0], second.url[1]);
    fastmq_connect_options options = telling(&told);
    NEED(fastmq_connect(urls, &options, &remote) == FASTMQ_OK);
    NEED(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], 1));
    CHECK(strcmp(told.server, "first") == 0, "the first server that answers is taken");
    fastmq_subscription *heard = subscribe(remote, "news");
    fastmq_server_close(first.server, PATIENCE);
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], 2)
              && strcmp(told.server, "second") == 0, "when it goes, the next one");
    CHECK_NUMBER(last_event(&told).flags, FASTMQ_EVENT_AGAIN | FASTMQ_EVENT_OTHER_INSTANCE,
                 "which the event says");
    CHECK_STATUS(request(remote, "nobody"), FASTMQ_NO_RESPONDER, "it answers");
    NEED(publish_number(second.broker, "news", 2) == FASTMQ_OK);
    CHECK_NUMBER(next_number(heard), 2, "and has the subscription");
    fastmq_unsubscribe(heard);
    fastmq_close(remote);
    end(&second);
    fastmq_close(first.broker);
    fastmq_server_close(first.server, 0);
    NEED(rmdir(first.directory) == 0);
}

/* A client that knows one server is told of another: it goes there when the first one drains, and
 * when it goes without a word. */
static void a_server_names_another(void)
{
    struct served first, second;
    struct told told = TOLD_INIT;
    fastmq_client *remote = NULL;
    fastmq_server *none = NULL;
    char too_long[4097];
    fastmq_listen_options listen = {.struct_size = sizeof listen};
    listen.name = text("second");
    serve(&second, &listen);
    listen.name = text("first");
    listen.servers = text(second.url[0]);
    serve(&first, &listen);
    fastmq_connect_options options = telling(&told);
    for (unsigned round = 0; round < 2; round++) {
        if (round > 0) {
            listen_again(&first, &listen);
        }
        unsigned before = gate_count(&told.kinds[FASTMQ_EVENT_CONNECTED]);
        NEED(fastmq_connect(first.url[0], &options, &remote) == FASTMQ_OK);
        NEED(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], before + 1));
        CHECK(strcmp(told.server, "first") == 0, "a client connects to the server that it knows");
        fastmq_server_close(first.server, round == 0 ? PATIENCE : 0);
        CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], before + 2)
                  && strcmp(told.server, "second") == 0, "when that goes, to the one it named");
        fastmq_close(remote);
    }
    listen.servers = text("somewhere");
    says(fastmq_listen(first.broker, first.urls, &listen, &none), FASTMQ_INVALID, "somewhere",
         "what it names must be URLs");
    memset(too_long, 'a', sizeof too_long);
    listen.servers = bytes(too_long, sizeof too_long);
    says(fastmq_listen(first.broker, first.urls, &listen, &none), FASTMQ_INVALID, "4,096",
         "4,096 bytes of them at most");
    CHECK(none == NULL, "and there is no server");
    end(&second);
    first.server = NULL;
    end(&first);
}

/* limits of a server */

static void limits(void)
{
    struct served served;
    struct told told = TOLD_INIT;
    fastmq_client *first = NULL, *second = NULL;
    fastmq_listen_options listen = {.struct_size = sizeof listen};
    listen.connections_max = listen.subscriptions_max = 1;
    serve(&served, &listen);
    fastmq_connect_options options = telling(&told);
    options.flags = FASTMQ_CONNECT_UNCONFIRMED;
    NEED(fastmq_connect(served.url[0], &options, &first) == FASTMQ_OK);
    says(fastmq_connect(served.url[1], NULL, &second), FASTMQ_UNAVAILABLE, "connections",
         "one connection more than there may be is UNAVAILABLE");
    fastmq_subscription *one = subscribe(first, "a"), *two = subscribe(first, "b");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_UNSUBSCRIBED], 1),
          "a subscription more than it may have is refused by an event");
    fastmq_event event = last_event(&told);
    CHECK(event.status == FASTMQ_NO_SPACE && event.subscription_id == fastmq_subscription_id(two),
          "which says which and why");
    NEED(publish_number(served.broker, "a", 4) == FASTMQ_OK);
    CHECK_NUMBER(next_number(one), 4, "the others stay");
    fastmq_unsubscribe(one);
    fastmq_unsubscribe(two);
    fastmq_close(first);
    fastmq_status status = FASTMQ_UNAVAILABLE;
    for (int i = 0; i < 1000 && status == FASTMQ_UNAVAILABLE; i++) {
        /* The server may not have seen the first one's end yet. */
        status = fastmq_connect(served.url[1], NULL, &second);
    }
    CHECK_STATUS(status, FASTMQ_OK, "room that is given back is used again");
    says(fastmq_subscribe(second, text("a"), NULL, &one), FASTMQ_OK, "", "by one subscription");
    says(fastmq_subscribe(second, text("b"), NULL, &two), FASTMQ_NO_SPACE, "subscriptions",
         "another one is NO_SPACE at once");
    CHECK(two == NULL, "and there is none");
    fastmq_unsubscribe(one);
    fastmq_close(second);
    end(&served);
}

static void a_message_is_too_large_for_a_client(void)
{
    struct served served;
    struct told told = TOLD_INIT;
    fastmq_client *remote = NULL;
    /* Beyond the frames that a client takes whose own payloads have 1 MiB at most. */
    static uint8_t large[2 << 20];
    fastmq_client *broker = NULL;
    fastmq_options generous = {.struct_size = sizeof generous, .payload_max = 4 << 20};
    NEED(fastmq_open(&generous, &broker) == FASTMQ_OK);
    serve_by(&served, broker, NULL);
    fastmq_connect_options options = telling(&told);
    NEED(fastmq_connect(served.url[0], &options, &remote) == FASTMQ_OK);
    fastmq_subscription *heard = subscribe(remote, "size");
    for (int i = 0; i < 3; i++) {
        NEED(fastmq_publish(served.broker, text("size"), bytes(large, sizeof large)) == FASTMQ_OK);
    }
    NEED(publish_number(served.broker, "size", 1) == FASTMQ_OK);
    fastmq_batch *batch = NULL;
    size_t count = 0;
    NEED(fastmq_receive(fastmq_subscription_queue(heard), 1, PATIENCE, &batch) == FASTMQ_OK);
    const fastmq_message *message = fastmq_batch_messages(batch, &count);
    CHECK(number_of(message) == 1 && message->lost_before == 3,
          "messages that are too large for a client are counted by the next one");
    fastmq_batch_free(batch);
    CHECK(gate_count(&told.kinds[FASTMQ_EVENT_GAP]) > 0, "and told by an event");
    CHECK_NUMBER(last_event(&told).subscription_id, fastmq_subscription_id(heard),
                 "which says of which subscription");
    fastmq_unsubscribe(heard);
    fastmq_close(remote);
    end(&served);
}

/* a newer protocol */

struct newer {
    int socket;
    char path[64], url[80];
    uint8_t reply[64];
    size_t size;
};

static void put32(uint8_t *at, uint32_t number)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(number >> 8 * i);
    }
}

/* docs/protocol.md: the begin of a frame, a field with a number, and a sentence of 8 bytes. */
static void frame(struct newer *newer, uint8_t kind, uint8_t code, uint16_t flags,
                  const void *words, uint16_t field, uint64_t value)
{
    uint8_t *reply = newer->reply;
    put32(reply, 48);
    reply[4] = kind;
    reply[5] = code;
    reply[6] = (uint8_t)flags;
    memcpy(reply + 8, words, 8);
    put32(reply + 16, field);
    put32(reply + 20, 8);
    put32(reply + 24, (uint32_t)value);
    put32(reply + 28, (uint32_t)(value >> 32));
    put32(reply + 32, 16);
    put32(reply + 36, 8);
    memcpy(reply + 40, "versions", 8);
    newer->size = 48;
}

/* A server of another version: reads the HELLO, says its word, closes. */
static void *answer_once(void *context)
{
    struct newer *newer = context;
    uint8_t hello[1024];
    int connection = accept(newer->socket, NULL, NULL);
    NEED(connection >= 0 && read(connection, hello, sizeof hello) > 0);
    NEED(send(connection, newer->reply, newer->size, MSG_NOSIGNAL) == (ssize_t)newer->size);
    close(connection);
    return NULL;
}

static void listen_at(struct newer *newer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(newer->path, sizeof newer->path, "/tmp/fastmq-newer-c-%d.sock", (int)getpid());
    snprintf(newer->url, sizeof newer->url, "unix:%s", newer->path);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", newer->path);
    newer->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    NEED(newer->socket >= 0);
    NEED(bind(newer->socket, (struct sockaddr *)&address, sizeof address) == 0);
    NEED(listen(newer->socket, 8) == 0);
}

static void connect_to_newer(struct newer *newer, fastmq_status expected, const char *part,
                             const char *name)
{
    fastmq_client *client = NULL;
    listen_at(newer);
    pthread_t thread = start_thread(answer_once, newer);
    says(fastmq_connect(newer->url, NULL, &client), expected, part, name);
    CHECK(client == NULL, "and there is no client");
    NEED(pthread_join(thread, NULL) == 0);
    close(newer->socket);
    unlink(newer->path);
}

static void a_server_is_newer(void)
{
    struct newer newer;
    uint8_t reason[8] = {0, 0, 0, 0, 7, 0, 0, 0};
    memset(&newer, 0, sizeof newer);
    /* ERROR, fatal, UNSUPPORTED, for no operation, VERSION: it has the versions 2 to 3. */
    frame(&newer, 19, FASTMQ_UNSUPPORTED, 1, reason, 1, UINT64_C(3) << 32 | 2);
    connect_to_newer(&newer, FASTMQ_UNSUPPORTED, "version", "a server without our version");
    /* WELCOME with version 2, which was not offered. */
    frame(&newer, 17, 0, 0, "FASTMQW1", 2, 2);
    connect_to_newer(&newer, FASTMQ_INVALID, "versions 2 to 2", "a server that takes another one");
}

/* what a server says, frame by frame */

/* Sends bytes that are written as hexadecimal digits: frames of tests/vectors/protocol.json. */
static void send_frame(int connection, const char *digits)
{
    uint8_t frame[64];
    size_t size = strlen(digits) / 2;
    NEED(size <= sizeof frame);
    for (size_t i = 0; i < size; i++) {
        char pair[3] = {digits[2 * i], digits[2 * i + 1], 0};
        frame[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    NEED(send(connection, frame, size, MSG_NOSIGNAL) == (ssize_t)size);
}

static void what_a_server_says_is_told(void)
{
    struct told told = TOLD_INIT;
    struct newer server;
    uint8_t hello[1024];
    fastmq_client *remote = NULL;
    memset(&server, 0, sizeof server);
    listen_at(&server);
    fastmq_connect_options options = telling(&told);
    options.flags = FASTMQ_CONNECT_LATER;
    NEED(fastmq_connect(server.url, &options, &remote) == FASTMQ_OK);
    int connection = accept(server.socket, NULL, NULL);
    NEED(connection >= 0 && read(connection, hello, sizeof hello) > 0);
    send_frame(connection, "2000000011000000464153544d51573102000000080000000100000000000000");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], 1), "a server says WELCOME");
    send_frame(connection, "200000001400000000000000050000001900000008000000404b4c0000000000");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_SLOW], 1), "that this client is slow is an event");
    CHECK_NUMBER(last_event(&told).count, 5000000, "which says how much waits");
    send_frame(connection, "2000000014000000000000000700000010000000060000006d656d6f72790000");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_LIMIT], 1), "that a limit is near is one");
    CHECK(strcmp(told.detail, "memory") == 0, "which says what limit");
    send_frame(connection, "200000001301000000000000170000001100000008000000627573792e6f6e65");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_REFUSED], 1), "that a publish is refused is one");
    CHECK_STATUS(last_event(&told).status, FASTMQ_AGAIN, "with its status");
    CHECK(strstr(told.detail, fastmq_status_text(FASTMQ_AGAIN)) != NULL,
          "and with the words for that, as the server has none");
    /* ERROR, fatal, DENIED, without a sentence. */
    send_frame(connection, "10000000132801000000000009000000");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_DISCONNECTED], 1), "that it ends is one");
    CHECK_STATUS(last_event(&told).status, FASTMQ_DENIED, "with its status");
    CHECK(strstr(told.detail, fastmq_status_text(FASTMQ_DENIED)) != NULL, "and a sentence");
    fastmq_close(remote);
    close(connection);
    close(server.socket);
    unlink(server.path);
}

/* closing while something is out */

static void a_server_closes_while_requests_are_out(void)
{
    struct served served;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[0]);
    fastmq_subscription *stuck = subscribe(served.broker, "stuck");
    fastmq_requester *requester = open_requester(remote, "stuck", 0);
    NEED(fastmq_requester_submit(requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    fastmq_batch *batch = NULL;
    size_t count = 0;
    NEED(fastmq_receive(fastmq_subscription_queue(stuck), 1, PATIENCE, &batch) == FASTMQ_OK);
    uint64_t token = fastmq_batch_messages(batch, &count)->token;
    fastmq_batch_free(batch);
    fastmq_server_close(served.server, 0);
    CHECK_NUMBER(next_fate(requester, FASTMQ_DISCONNECTED), 1,
                 "a server closes with a request out: DISCONNECTED");
    CHECK_STATUS(fastmq_reply(served.broker, token, text("!")), FASTMQ_NOT_FOUND,
                 "and its responder hears that the asker is gone");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(stuck);
    fastmq_close(remote);
    fastmq_close(served.broker);
    fastmq_server_close(served.server, 0);
    NEED(rmdir(served.directory) == 0);
}

/* A remote responder has a request and closes: whoever asked is told. */
static void a_responder_closes_while_it_owes(void)
{
    struct served served;
    serve(&served, NULL);
    fastmq_client *responder = connect_to(served.url[0]), *asker = connect_to(served.url[1]);
    fastmq_subscription *stuck = subscribe(responder, "stuck");
    fastmq_requester *requester = open_requester(asker, "stuck", 0);
    fastmq_requester *local = open_requester(served.broker, "stuck", 0);
    NEED(fastmq_requester_submit(requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    NEED(fastmq_requester_submit(local, text("?"), 2, FASTMQ_FOREVER) == FASTMQ_OK);
    fastmq_batch *batch = NULL;
    for (size_t seen = 0, count = 0; seen < 2; seen += count) {
        NEED(fastmq_receive(fastmq_subscription_queue(stuck), 1, PATIENCE, &batch) == FASTMQ_OK);
        fastmq_batch_messages(batch, &count);
        fastmq_batch_free(batch);
    }
    fastmq_close(responder);
    CHECK_NUMBER(next_fate(requester, FASTMQ_CANCELLED), 1,
                 "a responder goes: its remote asker hears CANCELLED");
    CHECK_NUMBER(next_fate(local, FASTMQ_CANCELLED), 2, "and so does a local one");
    fastmq_unsubscribe(stuck);
    fastmq_requester_close(requester);
    fastmq_requester_close(local);
    fastmq_close(asker);
    end(&served);
}

struct waiting {
    fastmq_queue *queue;
    fastmq_status status;
};

static void *receive_and_wait(void *context)
{
    struct waiting *waiting = context;
    fastmq_batch *batch = NULL;
    waiting->status = fastmq_receive(waiting->queue, 1, FASTMQ_FOREVER, &batch);
    fastmq_batch_free(batch);
    return NULL;
}

static void a_client_closes_under_its_threads(void)
{
    struct served served;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[0]);
    fastmq_subscription *stuck = subscribe(served.broker, "stuck");
    fastmq_subscription *heard = subscribe(remote, "heard");
    fastmq_publisher *publisher = open_publisher(remote, "a");
    fastmq_requester *requester = open_requester(remote, "stuck", 0);
    fastmq_queue *queue = open_queue(remote, FASTMQ_POLICY_BACKPRESSURE, 0);
    struct asking asking = {remote, FASTMQ_OK};
    struct waiting waiting = {fastmq_subscription_queue(heard), FASTMQ_OK};
    pthread_t asks = start_thread(ask_and_wait, &asking);
    pthread_t waits = start_thread(receive_and_wait, &waiting);
    NEED(fastmq_requester_submit(requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    /* Both requests are out when the responder has them. */
    fastmq_batch *batch = NULL;
    for (size_t seen = 0, count = 0; seen < 2; seen += count) {
        NEED(fastmq_receive(fastmq_subscription_queue(stuck), 1, PATIENCE, &batch) == FASTMQ_OK);
        fastmq_batch_messages(batch, &count);
        fastmq_batch_free(batch);
    }
    fastmq_close(remote);
    NEED(pthread_join(asks, NULL) == 0);
    NEED(pthread_join(waits, NULL) == 0);
    CHECK(asking.status == FASTMQ_DISCONNECTED || asking.status == FASTMQ_CANCELLED
              || asking.status == FASTMQ_CLOSED,
          "a thread that asks is told that its client was closed");
    CHECK_STATUS(waiting.status, FASTMQ_CLOSED, "so is one that receives");

    /* The handles of a closed client. */
    fastmq_outgoing question = outgoing("stuck", text("?"));
    fastmq_server *server = NULL;
    fastmq_subscription *more = NULL;
    uint32_t ready = 0;
    CHECK_STATUS(fastmq_publisher_publish(publisher, text("x")), FASTMQ_CLOSED,
                 "its publisher is CLOSED");
    CHECK_STATUS(fastmq_requester_submit(requester, text("?"), 2, PATIENCE), FASTMQ_CLOSED,
                 "its requester");
    CHECK_NUMBER(next_fate(requester, FASTMQ_DISCONNECTED), 1,
                 "which still says that a request of it was out");
    CHECK_STATUS(fastmq_requester_receive(requester, 1, PATIENCE, &batch), FASTMQ_CLOSED,
                 "and has nothing more to receive");
    CHECK_STATUS(fastmq_receive(queue, 1, PATIENCE, &batch), FASTMQ_CLOSED, "its queue");
    CHECK_STATUS(fastmq_request(remote, &question, PATIENCE, &batch), FASTMQ_MISUSE,
                 "its own handle is no handle any more");
    CHECK_STATUS(fastmq_subscribe(remote, text("a"), NULL, &more), FASTMQ_MISUSE, "to subscribe");
    CHECK_STATUS(fastmq_dispatch(remote, 0, 0, &ready), FASTMQ_MISUSE, "to dispatch");
    CHECK_STATUS(fastmq_listen(remote, "tcp://127.0.0.1:0", NULL, &server), FASTMQ_MISUSE,
                 "to listen");
    CHECK_NUMBER((uint64_t)(int64_t)fastmq_fd(remote), UINT64_MAX, "and has no descriptor");
    fastmq_publisher_close(publisher);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(heard);
    fastmq_queue_close(queue);
    fastmq_unsubscribe(stuck);
    end(&served);
}

/* structs of another size */

static void sizes(void)
{
    fastmq_client *client = NULL, *broker = open_client();
    fastmq_server *server = NULL;
    struct {
        fastmq_connect_options known;
        uint64_t unknown;
    } longer;
    fastmq_options inner = {.struct_size = 3};
    fastmq_thread_options thread = {.struct_size = 3};
    fastmq_connect_options connect = {.struct_size = sizeof connect, .client = &inner};
    fastmq_listen_options listen = {.struct_size = sizeof listen, .thread = &thread};
    says(fastmq_connect("unix:/nowhere", &connect, &client), FASTMQ_INVALID, "struct_size",
         "options inside of options have a size, too");
    says(fastmq_listen(broker, "tcp://127.0.0.1:0", &listen, &server), FASTMQ_INVALID,
         "struct_size", "and so has the thread of a server");
    memset(&longer, 0, sizeof longer);
    longer.known.struct_size = sizeof longer;
    CHECK_STATUS(fastmq_connect("unix:/nowhere", &longer.known, &client), FASTMQ_UNAVAILABLE,
                 "what a newer program leaves 0 is taken");
    longer.unknown = 1;
    says(fastmq_connect("unix:/nowhere", &longer.known, &client), FASTMQ_INVALID, "options",
         "what it sets is not");
    CHECK(client == NULL && server == NULL, "nothing was opened");
    fastmq_close(broker);
}

int main(int count, char **arguments)
{
    if (count > 1) {
        be_the_server(arguments[1]);
    }
    check_begin();
    a_server_is_killed_and_comes_back(arguments[0]);
    another_server_is_taken();
    a_server_names_another();
    limits();
    a_message_is_too_large_for_a_client();
    a_server_is_newer();
    what_a_server_says_is_told();
    a_server_closes_while_requests_are_out();
    a_responder_closes_while_it_owes();
    a_client_closes_under_its_threads();
    sizes();
    return check_end();
}
