/* Processes: fastmq_listen and fastmq_connect, over a Unix socket and over TCP.
 *
 * The broker of these tests listens at a socket file in a directory of its own and at a free port
 * of the loopback. Clients are in this process, and one is in a child that runs this program anew.
 */
/* valgrind */
#define _GNU_SOURCE
#include "served.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void where_it_listens(void)
{
    struct served served;
    struct stat file;
    serve(&served, NULL);
    CHECK(strncmp(served.url[0], "unix:/", 6) == 0 && strstr(served.urls, served.url[0]) != NULL,
          "the first URL is the one that was asked for");
    CHECK(strncmp(served.url[1], "tcp://127.0.0.1:", 16) == 0
              && strcmp(served.url[1], "tcp://127.0.0.1:0") != 0,
          "port 0 is one that was free");
    CHECK(strncmp(served.url[2], "shm:/", 5) == 0 && strstr(served.urls, served.url[2]) != NULL,
          "that of shared memory is as it was asked for");
    CHECK(fastmq_server_url(served.server, 3) == NULL, "there is no fourth one");
    CHECK(strstr(fastmq_last_error(), "index") != NULL, "and the sentence says so");
    CHECK(stat(served.socket, &file) == 0 && S_ISSOCK(file.st_mode)
              && (file.st_mode & 0777) == 0600,
          "the socket file is for this user alone");
    fastmq_server *second = NULL;
    CHECK_STATUS(fastmq_listen(served.broker, served.url[1], NULL, &second), FASTMQ_IO,
                 "an address in use is IO");
    CHECK(second == NULL && strstr(fastmq_last_error(), "in use") != NULL, "and says so");
    fastmq_server_close(served.server, 0);
    CHECK(stat(served.socket, &file) != 0, "closing takes the socket file away");
    CHECK_STATUS(publish_number(served.broker, "still.here", 1), FASTMQ_OK,
                 "the broker stays open");
    fastmq_close(served.broker);
    NEED(rmdir(served.directory) == 0);
}

/* messages */

/* Each of four publishes, and each of the four gets it all in order. */
static void publish_and_subscribe(void)
{
    enum { EACH = 500 };
    struct served served;
    serve(&served, NULL);
    fastmq_client *clients[4] = {served.broker, connect_to(served.url[0]),
                                 connect_to(served.url[1]), connect_to(served.url[2])};
    for (int from = 0; from < 4; from++) {
        fastmq_subscription *heard[4];
        int in_order = 1;
        for (int to = 0; to < 4; to++) {
            heard[to] = subscribe(clients[to], "number.*");
        }
        for (uint32_t i = 0; i < EACH; i++) {
            NEED(publish_number(clients[from], "number.x", i) == FASTMQ_OK);
        }
        for (int to = 0; to < 4; to++) {
            for (uint32_t i = 0; i < EACH; i++) {
                in_order &= next_number(heard[to]) == i;
            }
            fastmq_unsubscribe(heard[to]);
        }
        CHECK(in_order, from == 0   ? "remote clients get what the local one publishes, in order"
                        : from == 1 ? "all get what is published over a Unix socket"
                        : from == 2 ? "all get what is published over TCP"
                                    : "all get what is published through shared memory");
    }
    for (int i = 1; i < 4; i++) {
        fastmq_close(clients[i]);
    }
    end(&served);
}

static void request_and_reply(void)
{
    struct served served;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[0]), *other = connect_to(served.url[2]);
    fastmq_subscription *here = subscribe_call(served.broker, "ask.here", FASTMQ_DELIVERY_INLINE,
                                               answer_number, served.broker);
    fastmq_subscription *there = subscribe_call(remote, "ask.there", FASTMQ_DELIVERY_THREAD,
                                                answer_number, remote);
    CHECK_NUMBER(ask(remote, "ask.here", 21), 42, "a remote client asks the local responder");
    CHECK_NUMBER(ask(served.broker, "ask.there", 4), 8, "a local one asks the remote responder");
    CHECK_NUMBER(ask(other, "ask.there", 5), 10, "a remote one asks the other one's");
    fastmq_outgoing question = outgoing("nobody", text("?"));
    fastmq_batch *reply = NULL;
    CHECK_STATUS(fastmq_request(remote, &question, PATIENCE, &reply), FASTMQ_NO_RESPONDER,
                 "nobody listens, and the server says so");
    fastmq_requester *requester = open_requester(remote, "ask.here", 64);
    uint32_t right = 0;
    for (uint32_t i = 0; i < 64; i++) {
        NEED(fastmq_requester_submit(requester, bytes(&i, sizeof i), i, PATIENCE) == FASTMQ_OK);
    }
    for (size_t answers = 0, count = 0; answers < 64; answers += count) {
        NEED(fastmq_requester_receive(requester, 64, PATIENCE, &reply) == FASTMQ_OK);
        const fastmq_message *m = fastmq_batch_messages(reply, &count);
        for (size_t i = 0; i < count; i++) {
            right += m[i].status == FASTMQ_OK && number_of(&m[i]) == 2 * m[i].token;
        }
        fastmq_batch_free(reply);
    }
    CHECK_NUMBER(right, 64, "many requests in flight, each with its answer");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(here);
    fastmq_unsubscribe(there);
    fastmq_close(other);
    fastmq_close(remote);
    end(&served);
}

static void several_threads(void)
{
    struct served served;
    fastmq_listen_options listen = {.struct_size = sizeof listen, .shards = 3};
    fastmq_client *clients[6];
    fastmq_subscription *heard[6];
    serve(&served, &listen);
    for (int i = 0; i < 6; i++) {
        clients[i] = connect_to(served.url[i % 3]);
        heard[i] = subscribe(clients[i], "number.*");
    }
    int all = 1;
    for (uint32_t from = 0; from < 6; from++) {
        NEED(publish_number(clients[from], "number.x", from) == FASTMQ_OK);
        for (int to = 0; to < 6; to++) {
            all &= next_number(heard[to]) == from;
        }
    }
    CHECK(all, "clients hear each other, whatever thread of the server each has");
    for (int i = 0; i < 6; i++) {
        fastmq_unsubscribe(heard[i]);
        fastmq_close(clients[i]);
    }
    end(&served);
}

static void several_answers(void)
{
    struct served served;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[0]), *asker = connect_to(served.url[1]);
    fastmq_subscription *here = subscribe_call(served.broker, "ask.all", FASTMQ_DELIVERY_INLINE,
                                               answer_number, served.broker);
    fastmq_subscription *there = subscribe_call(remote, "ask.all", FASTMQ_DELIVERY_THREAD,
                                                answer_number, remote);
    uint32_t number = 4;
    fastmq_outgoing question = outgoing("ask.all", bytes(&number, sizeof number));
    fastmq_batch *answers = NULL;
    size_t count = 0;
    NEED(fastmq_request_many(asker, &question, 2, PATIENCE, &answers) == FASTMQ_OK);
    const fastmq_message *m = fastmq_batch_messages(answers, &count);
    CHECK(count == 2 && number_of(&m[0]) == 8 && number_of(&m[1]) == 8,
          "two processes answer one request");
    CHECK(m[count - 1].flags == FASTMQ_MESSAGE_END, "and the last answer says so");
    fastmq_batch_free(answers);
    fastmq_unsubscribe(here);
    fastmq_unsubscribe(there);

    /* A stream from one connection to another. */
    enum { REPLIES = 20, CREDIT = 4 };
    fastmq_subscription *asked = subscribe(remote, "ask.stream");
    fastmq_requester *requester = open_requester(asker, "ask.stream", 0);
    fastmq_many_options many = {.struct_size = sizeof many, .answers_max = 1, .credit = CREDIT};
    question.subject = text("");
    question.token = 5;
    NEED(fastmq_requester_submit_many(requester, &question, PATIENCE, &many) == FASTMQ_OK);
    NEED(fastmq_receive(fastmq_subscription_queue(asked), 1, PATIENCE, &answers) == FASTMQ_OK);
    uint64_t token = fastmq_batch_messages(answers, &count)->token;
    fastmq_batch_free(answers);
    fastmq_reply_stream *stream = NULL;
    NEED(fastmq_reply_stream_open(remote, token, &stream) == FASTMQ_OK);
    uint32_t sent = 0;
    fastmq_status status = FASTMQ_OK;
    while (sent < REPLIES
           && (status = fastmq_reply_stream_send(stream, bytes(&sent, sizeof sent)))
               == FASTMQ_OK) {
        sent++;
    }
    CHECK(sent == CREDIT && status == FASTMQ_AGAIN, "a stream sends what its asker has granted");
    uint32_t right = 0;
    for (uint32_t received = 0; received < REPLIES; received++) {
        if (received == sent) {
            /* Whatever was sent has been received: there will be credit for more. */
            NEED(fastmq_reply_stream_send_wait(stream, bytes(&sent, sizeof sent), PATIENCE)
                 == FASTMQ_OK);
            sent++;
        }
        NEED(fastmq_requester_receive(requester, 1, PATIENCE, &answers) == FASTMQ_OK);
        m = fastmq_batch_messages(answers, &count);
        right += m->token == 5 && number_of(m) == received && m->flags == FASTMQ_MESSAGE_MORE;
        fastmq_batch_free(answers);
    }
    CHECK_NUMBER(right, REPLIES, "and more, as that receives");
    NEED(fastmq_reply_stream_end(stream, FASTMQ_OK) == FASTMQ_OK);
    NEED(fastmq_requester_receive(requester, 1, PATIENCE, &answers) == FASTMQ_OK);
    m = fastmq_batch_messages(answers, &count);
    CHECK(m->status == FASTMQ_END && m->flags == FASTMQ_MESSAGE_END, "its end is a message");
    fastmq_batch_free(answers);
    fastmq_reply_stream_close(stream);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(asked);
    fastmq_close(asker);
    fastmq_close(remote);
    end(&served);
}

static void latest_values_and_presence(void)
{
    struct served served;
    serve(&served, NULL);
    fastmq_connect_options named = {.struct_size = sizeof named, .name = text("meter")};
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_subscription *latest = NULL, *present = NULL;
    fastmq_client *remote = connect_to(served.url[0]), *meter = NULL;
    options.policy = FASTMQ_POLICY_LATEST;
    CHECK_STATUS(fastmq_subscribe(remote, text("price"), &options, &latest), FASTMQ_OK,
                 "a remote client has a latest queue");
    options.policy = FASTMQ_POLICY_BACKPRESSURE;
    NEED(fastmq_subscribe(remote, text(FASTMQ_SUBJECT_CONNECTED ".meter"), &options, &present)
         == FASTMQ_OK);
    uint32_t last = 0;
    for (uint32_t number = 1; number <= 100; number++) {
        NEED(publish_number(served.broker, "price", number) == FASTMQ_OK);
    }
    while (last != 100) {
        last = next_number(latest);
    }
    CHECK_NUMBER(last, 100, "the newest comes");
    NEED(fastmq_connect(served.url[1], &named, &meter) == FASTMQ_OK);
    fastmq_batch *batch = NULL;
    size_t count = 0;
    CHECK_STATUS(fastmq_receive(fastmq_subscription_queue(present), 1, PATIENCE, &batch), FASTMQ_OK,
                 "it hears who connects");
    const fastmq_message *m = fastmq_batch_messages(batch, &count);
    CHECK(m[0].payload.size == 5 && memcmp(m[0].payload.data, "meter", 5) == 0, "by name");
    fastmq_batch_free(batch);
    fastmq_close(meter);
    fastmq_unsubscribe(latest);
    fastmq_unsubscribe(present);
    fastmq_close(remote);
    end(&served);
}

static void a_drain_brings_what_waits(void)
{
    enum { COUNT = 500 };
    struct served served;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[0]);
    fastmq_subscription *numbers = subscribe(remote, "to.remote");
    fastmq_subscription *heard = subscribe(served.broker, "to.local");
    for (uint32_t number = 0; number < COUNT; number++) {
        NEED(publish_number(served.broker, "to.remote", number) == FASTMQ_OK);
        NEED(publish_number(remote, "to.local", number) == FASTMQ_OK);
    }
    CHECK_STATUS(fastmq_drain(remote, 50 * MILLISECOND), FASTMQ_TIMEOUT, "it is not read yet");
    int in_order = 1;
    for (uint32_t number = 0; number < COUNT; number++) {
        in_order &= next_number(numbers) == number;
    }
    CHECK(in_order, "all that waited at the server has come");
    CHECK_STATUS(fastmq_drain(remote, PATIENCE), FASTMQ_OK, "then the drain ends");
    CHECK_STATUS(publish_number(remote, "to.local", 1), FASTMQ_CLOSED, "nothing new is taken");
    in_order = 1;
    for (uint32_t number = 0; number < COUNT; number++) {
        in_order &= next_number(heard) == number;
    }
    CHECK(in_order, "what was published has left");
    fastmq_unsubscribe(numbers);
    fastmq_unsubscribe(heard);
    fastmq_close(remote);
    end(&served);
}

/* What remote clients cannot do yet is refused, and not done by halves. */
static void not_there_yet(void)
{
    struct served served;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[0]);
    fastmq_outgoing message = outgoing("later", text("?"));
    message.flags = FASTMQ_OUTGOING_KEEP_LAST;
    CHECK_STATUS(fastmq_publish_message(remote, &message), FASTMQ_UNSUPPORTED,
                 "keeping last values is UNSUPPORTED");
    fastmq_close(remote);
    end(&served);
}

/* callbacks and loops */

static void count_call(const fastmq_message *message, void *context)
{
    (void)message;
    gate_add(context, 1);
}

struct asking_inline {
    fastmq_client *client;
    fastmq_status asked, subscribed;
    struct gate called;
};

/* On the link's own thread, which would wait for itself. */
static void ask_inline(const fastmq_message *message, void *context)
{
    struct asking_inline *asking = context;
    fastmq_outgoing question = outgoing("anybody", message->payload);
    fastmq_batch *reply = NULL;
    fastmq_subscription *subscription = NULL;
    asking->asked = fastmq_request(asking->client, &question, PATIENCE, &reply);
    asking->subscribed = fastmq_subscribe(asking->client, text("more"), NULL, &subscription);
    gate_add(&asking->called, 1);
}

static void callbacks(void)
{
    struct served served;
    struct gate by_thread = GATE_INIT;
    struct asking_inline asking = {.called = GATE_INIT};
    serve(&served, NULL);
    fastmq_client *remote = asking.client = connect_to(served.url[0]);
    fastmq_subscription *thread = subscribe_call(remote, "call", FASTMQ_DELIVERY_THREAD,
                                                 count_call, &by_thread);
    fastmq_subscription *here = subscribe_call(remote, "call", FASTMQ_DELIVERY_INLINE, ask_inline,
                                               &asking);
    NEED(publish_number(served.broker, "call", 1) == FASTMQ_OK);
    CHECK(gate_wait(&by_thread, 1), "a callback on a library thread gets it");
    CHECK(gate_wait(&asking.called, 1), "an inline one on the client's own thread");
    CHECK_STATUS(asking.asked, FASTMQ_MISUSE, "which must not ask there");
    CHECK_STATUS(asking.subscribed, FASTMQ_MISUSE, "nor subscribe");
    fastmq_unsubscribe(thread);
    fastmq_unsubscribe(here);
    fastmq_close(remote);
    end(&served);
}

static void foreign_loop(void)
{
    enum { MESSAGES = 100 };
    struct served served;
    struct gate calls = GATE_INIT;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[1]);
    fastmq_subscription *loop = subscribe_call(remote, "loop", FASTMQ_DELIVERY_DISPATCH,
                                               count_call, &calls);
    struct pollfd waited = {.fd = fastmq_fd(remote), .events = POLLIN};
    NEED(waited.fd >= 0);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        NEED(publish_number(served.broker, "loop", i) == FASTMQ_OK);
    }
    uint32_t ready = 0;
    while (gate_count(&calls) < MESSAGES && poll(&waited, 1, (int)(PATIENCE / MILLISECOND)) == 1) {
        NEED(fastmq_dispatch(remote, 16, 0, &ready) == FASTMQ_OK);
    }
    CHECK_NUMBER(gate_count(&calls), MESSAGES, "poll on the descriptor, then dispatch: all come");
    /* The client's thread may have said once more that there is something. */
    for (int i = 0; i < 100 && poll(&waited, 1, 0) == 1; i++) {
        NEED(fastmq_dispatch(remote, 16, 0, &ready) == FASTMQ_OK);
    }
    CHECK_NUMBER(poll(&waited, 1, 0), 0, "then the descriptor is quiet");
    fastmq_unsubscribe(loop);
    fastmq_close(remote);
    end(&served);
}

/* Waits for the client's descriptor, then dispatches, until the gate has reached `count`. */
static int dispatch_until(fastmq_client *client, struct gate *gate, uint64_t count)
{
    struct pollfd waited = {.fd = fastmq_fd(client), .events = POLLIN};
    uint32_t ready = 0;
    while (gate_count(gate) < count) {
        if (poll(&waited, 1, (int)(PATIENCE / MILLISECOND)) != 1) {
            return 0;
        }
        NEED(fastmq_dispatch(client, 0, 0, &ready) == FASTMQ_OK);
    }
    return 1;
}

static unsigned threads_of_this_process(void)
{
    unsigned threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    NEED(tasks != NULL);
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        threads += task->d_name[0] != '.';
    }
    closedir(tasks);
    return threads;
}

static void *close_server(void *server)
{
    fastmq_server_close(server, PATIENCE);
    return NULL;
}

static void a_loop_drives_the_connection(void)
{
    enum { MESSAGES = 100 };
    struct served served;
    struct told told = TOLD_INIT;
    struct gate calls = GATE_INIT;
    fastmq_client *remote = NULL;
    serve(&served, NULL);
    fastmq_subscription *doubling = subscribe_call(served.broker, "double",
                                                   FASTMQ_DELIVERY_INLINE, answer_number,
                                                   served.broker);
    fastmq_connect_options options = telling(&told);
    options.flags = FASTMQ_CONNECT_POLLED | FASTMQ_CONNECT_LATER | FASTMQ_CONNECT_UNCONFIRMED;
    unsigned threads = threads_of_this_process();
    NEED(fastmq_connect(served.url[0], &options, &remote) == FASTMQ_OK);
    fastmq_subscription *heard = subscribe_call(remote, "loop", FASTMQ_DELIVERY_DISPATCH,
                                                count_call, &calls);
    CHECK_NUMBER(gate_count(&told.kinds[FASTMQ_EVENT_CONNECTED]), 0, "nothing goes by itself");
    CHECK(dispatch_until(remote, &told.kinds[FASTMQ_EVENT_CONNECTED], 1),
          "a loop of one's own connects");
    for (uint32_t i = 0; i < MESSAGES; i++) {
        NEED(publish_number(remote, "loop", i) == FASTMQ_OK);
    }
    CHECK(dispatch_until(remote, &calls, MESSAGES), "it sends and receives");

    fastmq_requester *requester = open_requester(remote, "double", 0);
    struct pollfd waited = {.fd = fastmq_fd(remote), .events = POLLIN};
    uint32_t ready = 0, number = 4;
    size_t count = 0;
    NEED(fastmq_requester_submit(requester, bytes(&number, sizeof number), 7, PATIENCE)
         == FASTMQ_OK);
    while ((ready & FASTMQ_READY_ANSWERS) == 0 && poll(&waited, 1, 30000) == 1) {
        NEED(fastmq_dispatch(remote, 0, 0, &ready) == FASTMQ_OK);
    }
    fastmq_batch *reply = NULL;
    NEED(fastmq_requester_receive(requester, 1, 0, &reply) == FASTMQ_OK);
    CHECK_NUMBER(number_of(fastmq_batch_messages(reply, &count)), 8, "and says that answers came");
    fastmq_batch_free(reply);
    fastmq_requester_close(requester);
    CHECK_NUMBER(ask(remote, "double", 5), 10, "a call that waits drives, too");

    pthread_t closing = start_thread(close_server, served.server);
    CHECK(dispatch_until(remote, &told.kinds[FASTMQ_EVENT_DISCONNECTED], 1),
          "the loop hears that the server closes");
    NEED(pthread_join(closing, NULL) == 0);
    NEED(fastmq_next_deadline(remote) != FASTMQ_FOREVER);
    NEED(publish_number(remote, "loop", MESSAGES) == FASTMQ_OK);
    listen_again(&served, NULL);
    CHECK(dispatch_until(remote, &told.kinds[FASTMQ_EVENT_CONNECTED], 2), "connects again");
    CHECK(dispatch_until(remote, &calls, MESSAGES + 1), "and sends what was kept");
    CHECK_NUMBER(threads_of_this_process(), threads, "all without a thread of the client's");
    fastmq_unsubscribe(heard);
    fastmq_close(remote);
    CHECK(last_event(&told).status == FASTMQ_CLOSED, "closing is told, too");
    fastmq_unsubscribe(doubling);
    end(&served);
}

/* another process */

/* The child: answers `child.double`, says so, and publishes what it hears on `to.child`. */
static int be_the_child(const char *url)
{
    fastmq_connect_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    fastmq_subscription *heard = NULL, *doubling = NULL;
    fastmq_subscribe_options how = {.struct_size = sizeof how};
    options.name = text("the child");
    how.delivery = FASTMQ_DELIVERY_THREAD;
    how.on_message = answer_number;
    alarm(CHECK_WATCHDOG_SECONDS);
    NEED(fastmq_connect(url, &options, &client) == FASTMQ_OK);
    how.context = client;
    NEED(fastmq_subscribe(client, text("child.double"), &how, &doubling) == FASTMQ_OK);
    heard = subscribe(client, "to.child");
    NEED(publish_number(client, "from.child", ask(client, "parent.double", 8)) == FASTMQ_OK);
    for (uint32_t number = 1; number != 0;) {
        number = next_number(heard);
        NEED(publish_number(client, "from.child", number + 100) == FASTMQ_OK);
    }
    fastmq_unsubscribe(heard);
    fastmq_unsubscribe(doubling);
    fastmq_close(client);
    return 0;
}

static void another_process(const char *program)
{
    struct served served;
    int status = 0;
    serve(&served, NULL);
    fastmq_subscription *heard = subscribe(served.broker, "from.child");
    fastmq_subscription *doubling = subscribe_call(served.broker, "parent.double",
                                                   FASTMQ_DELIVERY_INLINE, answer_number,
                                                   served.broker);
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, served.url[0], (char *)NULL);
        _exit(127);
    }
    NEED(child > 0);
    CHECK_NUMBER(next_number(heard), 16, "a process asks, and publishes the answer");
    CHECK_NUMBER(ask(served.broker, "child.double", 30), 60, "it is asked, and answers");
    int all = 1;
    for (uint32_t i = 1; i <= 10; i++) {
        NEED(publish_number(served.broker, "to.child", i) == FASTMQ_OK);
        all &= next_number(heard) == i + 100;
    }
    CHECK(all, "messages go there and come back");
    NEED(publish_number(served.broker, "to.child", 0) == FASTMQ_OK);
    CHECK_NUMBER(next_number(heard), 100, "also what it publishes just before it ends");
    NEED(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "and it ends in peace");
    fastmq_outgoing question = outgoing("child.double", text("?"));
    fastmq_batch *reply = NULL;
    CHECK_STATUS(fastmq_request(served.broker, &question, PATIENCE, &reply), FASTMQ_NO_RESPONDER,
                 "then nobody answers");
    fastmq_unsubscribe(heard);
    fastmq_unsubscribe(doubling);
    end(&served);
}

/* events */

static void a_server_goes_and_comes_back(void)
{
    struct served served;
    struct told told = TOLD_INIT;
    fastmq_client *remote = NULL;
    fastmq_listen_options listen = {.struct_size = sizeof listen};
    listen.name = text("the server");
    serve(&served, &listen);
    fastmq_connect_options options = telling(&told);
    NEED(fastmq_connect(served.url[0], &options, &remote) == FASTMQ_OK);
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], 1), "the first connection is an event");
    fastmq_event event = last_event(&told);
    CHECK(event.flags == 0 && strcmp(told.server, "the server") == 0,
          "which says whose, and that it is the first");
    fastmq_subscription *heard = subscribe(remote, "events");

    fastmq_server_close(served.server, PATIENCE);
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_DRAINING], 1), "the server says that it will close");
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_DISCONNECTED], 1), "and has closed");
    CHECK_STATUS(publish_number(remote, "kept", 7), FASTMQ_OK, "a publish waits meanwhile");
    fastmq_subscription *kept = subscribe(served.broker, "kept");
    listen_again(&served, NULL);
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_CONNECTED], 2), "the client comes back by itself");
    CHECK_NUMBER(next_number(kept), 7, "what waited arrives");
    event = last_event(&told);
    CHECK((event.flags & FASTMQ_EVENT_AGAIN) != 0 && event.count == 1,
          "the event says that it is not the first, and how many subscriptions were asked for");
    uint32_t answer = 0;
    size_t size = 0;
    NEED(fastmq_request_into(remote, text("nobody"), text(""), PATIENCE, &answer, sizeof answer,
                             &size) == FASTMQ_NO_RESPONDER);
    NEED(publish_number(served.broker, "events", 5) == FASTMQ_OK);
    CHECK_NUMBER(next_number(heard), 5, "the subscription goes on");

    fastmq_unsubscribe(kept);
    fastmq_unsubscribe(heard);
    fastmq_close(remote);
    event = last_event(&told);
    CHECK(event.kind == FASTMQ_EVENT_DISCONNECTED && event.status == FASTMQ_CLOSED,
          "the last event has come when close returns, and says CLOSED");
    end(&served);
}

static void a_callback_closes_its_client(void)
{
    struct told told = TOLD_INIT;
    fastmq_client *remote = NULL;
    fastmq_connect_options options = telling(&told);
    options.flags = FASTMQ_CONNECT_LATER;
    NEED(fastmq_connect("unix:/nowhere/at/all", &options, &remote) == FASTMQ_OK);
    CHECK(gate_wait(&told.kinds[FASTMQ_EVENT_DISCONNECTED], 1),
          "a client that connects later is told that nobody is there");
    CHECK(strstr(told.detail, "/nowhere/at/all") != NULL, "and where");
    atomic_store(&told.to_close, remote);
    CHECK(gate_wait(&told.closed, 1), "closed inside the callback, there is one more event");
    CHECK_STATUS(publish_number(remote, "a", 1), FASTMQ_MISUSE, "and the handle is closed");
}

/* refusals */

static void tokens(void)
{
    struct served served;
    fastmq_listen_options listen = {.struct_size = sizeof listen};
    fastmq_connect_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    listen.token = text("open sesame");
    listen.name = text("cave");
    serve(&served, &listen);
    says(fastmq_connect(served.url[0], NULL, &client), FASTMQ_DENIED, "token",
         "no token is DENIED");
    options.token = text("open barley");
    says(fastmq_connect(served.url[1], &options, &client), FASTMQ_DENIED, "token",
         "a wrong one too");
    CHECK(client == NULL, "and there is no client");
    options.token = text("open sesame");
    CHECK_STATUS(fastmq_connect(served.url[1], &options, &client), FASTMQ_OK,
                 "the right one opens");
    fastmq_close(client);
    end(&served);
}

static void connecting_fails(void)
{
    fastmq_client *client = NULL;
    fastmq_connect_options options = {.struct_size = sizeof options};
    says(fastmq_connect("unix:/nowhere/mq", NULL, &client), FASTMQ_UNAVAILABLE, "/nowhere/mq",
         "no server is UNAVAILABLE");
    says(fastmq_connect(NULL, NULL, &client), FASTMQ_INVALID, "urls is NULL", "no URL is INVALID");
    says(fastmq_connect("unix:/a", NULL, NULL), FASTMQ_INVALID, "out is NULL", "so is no out");
    says(fastmq_connect("", NULL, &client), FASTMQ_INVALID, "empty", "an empty one");
    says(fastmq_connect("http://a", NULL, &client), FASTMQ_INVALID, "http://a", "a foreign one");
    says(fastmq_connect("unix:/a,tcp://b", NULL, &client), FASTMQ_INVALID, "tcp://b",
         "a bad one among good ones");
    says(fastmq_connect("unix:/\xff", NULL, &client), FASTMQ_INVALID, "UTF-8",
         "one that is no text");
    options.flags = 1U << 31;
    says(fastmq_connect("unix:/a", &options, &client), FASTMQ_INVALID, "flags", "an unknown flag");
    options.flags = 0;
    options.name = bytes("\xff", 1);
    says(fastmq_connect("unix:/a", &options, &client), FASTMQ_INVALID, "name",
         "a name that is none");
    options.name = text("two\nlines");
    says(fastmq_connect("unix:/a", &options, &client), FASTMQ_INVALID, "name", "or has two lines");
    options.name = bytes(NULL, 0);
    options.token = bytes(NULL, 4);
    says(fastmq_connect("unix:/a", &options, &client), FASTMQ_INVALID, "token",
         "a token at NULL");
    options.token = bytes(NULL, 0);
    options.backoff_min_ns = 2;
    options.backoff_max_ns = 1;
    says(fastmq_connect("unix:/a", &options, &client), FASTMQ_INVALID, "backoff",
         "pauses that shrink");
    options.backoff_min_ns = options.backoff_max_ns = 0;
    fastmq_options broker = {.struct_size = sizeof broker, .wait = 99};
    options.client = &broker;
    says(fastmq_connect("unix:/a", &options, &client), FASTMQ_INVALID, "wait",
         "options of the broker");
    CHECK(client == NULL, "nothing was opened");
}

static void listening_fails(void)
{
    fastmq_client *broker = open_client();
    fastmq_server *server = NULL;
    fastmq_listen_options options = {.struct_size = sizeof options};
    const char *loopback = "tcp://127.0.0.1:0";
    says(fastmq_listen(broker, NULL, NULL, &server), FASTMQ_INVALID, "urls is NULL",
         "no URL is INVALID");
    says(fastmq_listen(broker, loopback, NULL, NULL), FASTMQ_INVALID, "out is NULL",
         "so is no out");
    says(fastmq_listen(NULL, loopback, NULL, &server), FASTMQ_INVALID, "client is NULL",
         "and no client");
    says(fastmq_listen(broker, "", NULL, &server), FASTMQ_INVALID, "empty", "an empty one");
    says(fastmq_listen(broker, "tcp://127.0.0.1:0,pigeon:7", NULL, &server), FASTMQ_INVALID,
         "pigeon:7", "a bad one among good ones");
    says(fastmq_listen(broker, "tcp://0.0.0.0:0", NULL, &server), FASTMQ_DENIED, "insecure",
         "an open address is DENIED");
    options.flags = FASTMQ_LISTEN_INSECURE;
    CHECK_STATUS(fastmq_listen(broker, "tcp://0.0.0.0:0", &options, &server), FASTMQ_OK,
                 "unless it is allowed");
    fastmq_server_close(server, 0);
    options.flags = 2;
    says(fastmq_listen(broker, loopback, &options, &server), FASTMQ_INVALID, "flags",
         "an unknown flag is INVALID");
    options.flags = 0;
    options.wait = 99;
    says(fastmq_listen(broker, loopback, &options, &server), FASTMQ_INVALID, "wait",
         "so is an unknown way to wait");
    options.wait = 0;
    options.shards = 65;
    says(fastmq_listen(broker, loopback, &options, &server), FASTMQ_INVALID, "shards",
         "and more threads than it may have");
    options.shards = 0;
    fastmq_thread_options thread = {.struct_size = sizeof thread, .scheduling = 99};
    options.thread = &thread;
    says(fastmq_listen(broker, loopback, &options, &server), FASTMQ_INVALID, "scheduling",
         "and an unknown scheduling");
    CHECK(server == NULL, "nothing was opened");
    fastmq_close(broker);
}

/* changes, and sockets of somebody else */

static void what_a_server_takes_over(void)
{
    struct served served;
    fastmq_client *late = NULL;
    fastmq_subscription *more = NULL;
    fastmq_listen_options listen = {.struct_size = sizeof listen};
    fastmq_connect_options connect = {.struct_size = sizeof connect};
    listen.token = connect.token = text("old");
    serve(&served, &listen);
    fastmq_client *early = NULL;
    NEED(fastmq_connect(served.url[0], &connect, &early) == FASTMQ_OK);
    fastmq_subscription *heard = subscribe(early, "a");
    listen.token = text("new");
    listen.subscriptions_max = 1;
    CHECK_STATUS(fastmq_server_change(served.server, &listen), FASTMQ_OK, "a server is changed");
    CHECK_STATUS(fastmq_connect(served.url[0], &connect, &late), FASTMQ_DENIED,
                 "the old token is no good any more");
    connect.token = listen.token;
    CHECK_STATUS(fastmq_connect(served.url[0], &connect, &late), FASTMQ_OK, "the new one is");
    NEED(publish_number(late, "a", 3) == FASTMQ_OK);
    CHECK_NUMBER(next_number(heard), 3, "who was there stays");
    CHECK_STATUS(fastmq_subscribe(early, text("b"), NULL, &more), FASTMQ_NO_SPACE,
                 "with the new limit");
    CHECK_STATUS(fastmq_server_change(served.server, NULL), FASTMQ_OK, "NULL is the defaults");
    CHECK_STATUS(fastmq_subscribe(early, text("b"), NULL, &more), FASTMQ_OK, "with their limit");
    static const uint8_t long_token[4097];
    listen.token = bytes(long_token, sizeof long_token);
    CHECK_STATUS(fastmq_server_change(served.server, &listen), FASTMQ_INVALID,
                 "a token is not too long");
    fastmq_unsubscribe(more);
    fastmq_unsubscribe(heard);
    fastmq_close(early);
    fastmq_close(late);
    end(&served);
}

static void a_socket_of_somebody_else(void)
{
    fastmq_client *broker = open_client();
    fastmq_server *server = NULL;
    fastmq_listen_options options = {.struct_size = sizeof options};
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int32_t made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    NEED(made >= 0 && bind(made, (struct sockaddr *)&address, sizeof address) == 0);
    NEED(listen(made, 16) == 0);
    options.sockets = &made;
    options.sockets_count = 1;
    CHECK_STATUS(fastmq_listen(broker, NULL, &options, &server), FASTMQ_OK,
                 "a socket that listens already needs no URL");
    fastmq_client *remote = connect_to(fastmq_server_url(server, 0));
    fastmq_subscription *heard = subscribe(remote, "a");
    NEED(publish_number(broker, "a", 6) == FASTMQ_OK);
    CHECK_NUMBER(next_number(heard), 6, "and is served");
    fastmq_unsubscribe(heard);
    fastmq_close(remote);
    fastmq_server_close(server, PATIENCE);
    CHECK(fcntl(made, F_GETFD) >= 0, "it stays its owner's");
    options.sockets = NULL;
    says(fastmq_listen(broker, NULL, &options, &server), FASTMQ_INVALID, "sockets is NULL",
         "sockets at NULL are INVALID");
    int32_t wrong = -1;
    options.sockets = &wrong;
    says(fastmq_listen(broker, NULL, &options, &server), FASTMQ_INVALID, "below 0", "and -1");
    wrong = 1 << 20;
    says(fastmq_listen(broker, NULL, &options, &server), FASTMQ_IO, "socket",
         "a descriptor that is none is IO");
    close(made);
    CHECK(server == NULL, "nothing was opened");
    fastmq_close(broker);
}

static void what_a_server_does(void)
{
    struct served served;
    fastmq_listen_options listen = {.struct_size = sizeof listen};
    listen.name = text("the hub");
    serve(&served, &listen);
    fastmq_client *remote = connect_to(served.url[0]);
    static char json[64 << 10];
    size_t size = 0;
    CHECK_STATUS(fastmq_request_into(remote, text(FASTMQ_SUBJECT_STATS), text(""), PATIENCE, json,
                                     sizeof json - 1, &size),
                 FASTMQ_OK, "a server says what it does");
    NEED(size < sizeof json);
    json[size] = 0;
    CHECK(json[0] == '{' && json[size - 1] == '}' && strstr(json, "the hub") != NULL,
          "as one JSON object");
    CHECK_STATUS(fastmq_request_into(served.broker, text(FASTMQ_SUBJECT_STATS), text(""),
                                     PATIENCE, json, sizeof json, &size),
                 FASTMQ_DENIED, "to its clients");
    CHECK_STATUS(publish_number(remote, FASTMQ_SUBJECT_STATS, 1), FASTMQ_DENIED,
                 "a publish there is DENIED at once, as to every reserved subject");
    CHECK_STATUS(publish_number(remote, "$SYS.OTHER", 1), FASTMQ_DENIED, "to this one, too");
    fastmq_close(remote);
    end(&served);
}

/* handles */

static void handles(void)
{
    struct served served;
    fastmq_server *server = NULL;
    serve(&served, NULL);
    fastmq_client *remote = connect_to(served.url[0]);
    says(fastmq_listen(remote, "tcp://127.0.0.1:0", NULL, &server), FASTMQ_UNSUPPORTED, "connect",
         "a client of a server does not listen");
    says(fastmq_listen((fastmq_client *)served.server, served.url[0], NULL, &server),
         FASTMQ_MISUSE, "client", "a server is no client");
    CHECK(fastmq_server_url((fastmq_server *)remote, 0) == NULL, "nor is a client a server");
    CHECK(fastmq_server_url(NULL, 0) == NULL, "NULL has no URL");
    fastmq_server_close(NULL, 0);
    CHECK_STATUS(fastmq_server_change(NULL, NULL), FASTMQ_INVALID, "nor can it be changed");

    fastmq_server_close(served.server, PATIENCE);
    CHECK(fastmq_server_url(served.server, 0) == NULL, "nor has a server that was closed");
    fastmq_server_close(served.server, 0);
    CHECK(strstr(fastmq_last_error(), "closed already") != NULL, "closing twice is seen");

    listen_again(&served, NULL);
    fastmq_close(served.broker);
    CHECK(fastmq_server_url(served.server, 0) == NULL
              && strstr(fastmq_last_error(), "closed") != NULL,
          "the end of a client is that of its server");
    CHECK_STATUS(fastmq_server_change(served.server, NULL), FASTMQ_CLOSED,
                 "which is not changed any more");
    struct stat file;
    CHECK(stat(served.socket, &file) != 0, "which listens no more");
    fastmq_client *late = NULL;
    CHECK_STATUS(fastmq_connect(served.url[0], NULL, &late), FASTMQ_UNAVAILABLE, "to anybody");
    fastmq_server_close(served.server, 0);
    CHECK_STATUS(fastmq_listen(served.broker, served.url[0], NULL, &server), FASTMQ_MISUSE,
                 "a closed client does not listen");

    fastmq_close(remote);
    CHECK_STATUS(publish_number(remote, "a", 1), FASTMQ_MISUSE, "a closed remote client is closed");
    fastmq_close(remote);
    CHECK(strstr(fastmq_last_error(), "closed already") != NULL, "closing it twice is seen");
    NEED(rmdir(served.directory) == 0);
}

int main(int count, char **arguments)
{
    if (count > 1) {
        return be_the_child(arguments[1]);
    }
    check_begin();
    where_it_listens();
    publish_and_subscribe();
    request_and_reply();
    several_threads();
    several_answers();
    latest_values_and_presence();
    a_drain_brings_what_waits();
    not_there_yet();
    callbacks();
    foreign_loop();
    a_loop_drives_the_connection();
    another_process(arguments[0]);
    a_server_goes_and_comes_back();
    a_callback_closes_its_client();
    tokens();
    connecting_fails();
    listening_fails();
    what_a_server_takes_over();
    a_socket_of_somebody_else();
    what_a_server_does();
    handles();
    return check_end();
}
