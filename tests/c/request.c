/* Requests: each one ends with exactly one fate, and its number of requests in flight is bounded.
 *
 * Decided here: `fastmq_request` returns the fate that the engine decides (NO_RESPONDER, BUSY,
 * TIMEOUT, CANCELLED) and no batch; an answer, whatever status its responder gave it, is OK with
 * that status in the message. `request_into` has no message to put it in, so it returns the
 * responder's status. A submitted request always ends as a message in `requester_receive`: submit
 * itself fails only for bad arguments and a full window. A window place is free again when its
 * answer has been received. A second reply is OK or NOT_FOUND, and reaches nobody.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

static fastmq_client *client;

static fastmq_status submit(fastmq_requester *requester, uint32_t number)
{
    return fastmq_requester_submit(requester, bytes(&number, sizeof number), number, PATIENCE);
}

/* Takes one request out of a responder's queue; returns its token. */
static uint64_t take_request(fastmq_queue *queue, uint32_t *out_number)
{
    const fastmq_message *m = NULL;
    size_t count = 0;
    fastmq_batch *batch = take(queue, 1, &m, &count);
    uint64_t token = m[0].token;
    NEED((m[0].flags & FASTMQ_MESSAGE_REQUEST) != 0 && token != 0);
    *out_number = number_of(&m[0]);
    fastmq_batch_free(batch);
    return token;
}

/* Answers all that waits in the queue, each with its own number. */
static uint32_t answer_all(fastmq_queue *queue)
{
    uint32_t answered = 0;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 64, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            NEED(fastmq_reply(client, m[i].token, m[i].payload) == FASTMQ_OK);
            answered++;
        }
        fastmq_batch_free(batch);
    }
    return answered;
}

struct fate {
    uint64_t token;
    uint32_t status, number;
};

/* Waits for one answer. */
static struct fate one_fate(fastmq_requester *requester)
{
    fastmq_batch *batch = NULL;
    struct fate fate = {UINT64_MAX, UINT32_MAX, UINT32_MAX};
    if (fastmq_requester_receive(requester, 1, PATIENCE, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        NEED(count == 1);
        fate.token = m[0].token;
        fate.status = m[0].status;
        fate.number = number_of(&m[0]);
        fastmq_batch_free(batch);
    }
    return fate;
}

static fastmq_status none_left(fastmq_requester *requester)
{
    fastmq_batch *batch = NULL;
    return fastmq_requester_receive(requester, 1, 0, &batch);
}

static void no_responder(void)
{
    fastmq_outgoing request = outgoing("ask.nobody", text("?"));
    fastmq_batch *batch = NULL;
    char reply[8];
    size_t size = 77;
    CHECK_STATUS(fastmq_request(client, &request, FASTMQ_FOREVER, &batch), FASTMQ_NO_RESPONDER,
                 "a request that nobody listens to is answered at once: NO_RESPONDER");
    CHECK(batch == NULL, "without a batch");
    CHECK(strstr(fastmq_last_error(), "ask.nobody") != NULL, "the sentence names the subject");
    CHECK_STATUS(fastmq_request_into(client, text("ask.nobody"), text("?"), FASTMQ_FOREVER, reply,
                                     sizeof reply, &size),
                 FASTMQ_NO_RESPONDER, "so is request_into");
    CHECK_NUMBER(size, 0, "which sets the size to 0");
    fastmq_requester *requester = open_requester(client, "ask.nobody", 0);
    CHECK_STATUS(submit(requester, 5), FASTMQ_OK, "a submitted one is accepted");
    struct fate fate = one_fate(requester);
    CHECK(fate.status == FASTMQ_NO_RESPONDER && fate.token == 5, "and ends with NO_RESPONDER");
    CHECK_STATUS(none_left(requester), FASTMQ_AGAIN, "once");
    fastmq_requester_close(requester);
}

static void answer_inline(const fastmq_message *message, void *context)
{
    uint32_t *asked = context;
    ++*asked;
    if (same(message->payload, "silence")) {
        return;
    }
    if (same(message->payload, "error")) {
        fastmq_outgoing answer = outgoing("", text("no such thing"));
        fastmq_reply_message(client, message->token, &answer, FASTMQ_NOT_FOUND);
        return;
    }
    fastmq_reply(client, message->token, message->payload);
}

static void inline_responder(void)
{
    uint32_t asked = 0;
    fastmq_subscription *responder = subscribe_call(client, "ask.inline.*", FASTMQ_DELIVERY_INLINE,
                                                    answer_inline, &asked);
    fastmq_requester *requester = open_requester(client, "ask.inline.b", 0);
    fastmq_outgoing request = outgoing("ask.inline.a", text("how late?"));
    fastmq_batch *batch = NULL;
    char reply[16];
    size_t size = 0, count = 0;
    CHECK_STATUS(fastmq_request(client, &request, SECOND, &batch), FASTMQ_OK,
                 "an inline responder answers on this thread");
    const fastmq_message *m = fastmq_batch_messages(batch, &count);
    CHECK(count == 1 && same(m[0].payload, "how late?") && m[0].status == FASTMQ_OK,
          "the reply is one message");
    fastmq_batch_free(batch);
    CHECK(fastmq_request_into(client, text("ask.inline.a"), text("copied"), SECOND, reply,
                              sizeof reply, &size) == FASTMQ_OK
              && same(bytes(reply, size), "copied"), "request_into copies it to the caller");
    CHECK(fastmq_requester_request_into(requester, text("by handle"), SECOND, reply, sizeof reply,
                                        &size) == FASTMQ_OK
              && same(bytes(reply, size), "by handle"), "so it does through a handle");
    memset(reply, '#', sizeof reply);
    CHECK_STATUS(fastmq_request_into(client, text("ask.inline.a"), text("twelve bytes"), SECOND,
                                     reply, 6, &size),
                 FASTMQ_TOO_LARGE, "a reply larger than the caller's buffer is TOO_LARGE");
    CHECK_NUMBER(size, 12, "with the size that it needs");
    CHECK(reply[6] == '#', "and not a byte beyond the buffer");
    CHECK_STATUS(fastmq_request_into(client, text("ask.inline.a"), bytes(reply + 4, 4), SECOND,
                                     reply, 8, &size),
                 FASTMQ_INVALID, "a reply that overlaps the payload is INVALID");
    CHECK_STATUS(fastmq_request_into(client, text("ask.inline.a"), bytes(reply, 8), SECOND,
                                     reply + 7, 1, &size),
                 FASTMQ_INVALID, "from either side");
    CHECK_STATUS(fastmq_request_into(client, text("ask.inline.a"), bytes(reply, 8), SECOND,
                                     reply + 8, 8, &size),
                 FASTMQ_OK, "beside it is fine");
    CHECK(size == 8 && memcmp(reply, reply + 8, 8) == 0, "and has the answer");
    CHECK_STATUS(fastmq_request_into(client, text("ask.inline.a"), bytes(reply, 0), SECOND,
                                     reply, 8, &size),
                 FASTMQ_OK, "nothing overlaps nothing");
    CHECK_STATUS(fastmq_request_into(client, text("ask.inline.a"), bytes(NULL, 0), SECOND, NULL, 0,
                                     &size),
                 FASTMQ_OK, "an empty reply needs no buffer");

    request.payload = text("error");
    CHECK_STATUS(fastmq_request(client, &request, SECOND, &batch), FASTMQ_OK,
                 "an answer with a status is an answer");
    m = fastmq_batch_messages(batch, &count);
    CHECK(count == 1 && m[0].status == FASTMQ_NOT_FOUND && same(m[0].payload, "no such thing"),
          "the status is in the message, beside its payload");
    fastmq_batch_free(batch);
    CHECK_STATUS(fastmq_request_into(client, text("ask.inline.a"), text("error"), SECOND, reply,
                                     sizeof reply, &size),
                 FASTMQ_NOT_FOUND, "request_into returns the responder's status");
    CHECK(same(bytes(reply, size), "no such thing"), "and copies the payload all the same");

    request.payload = text("silence");
    CHECK_STATUS(fastmq_request(client, &request, 5 * MILLISECOND, &batch), FASTMQ_TIMEOUT,
                 "no answer in time is TIMEOUT");
    CHECK(batch == NULL, "without a batch");
    request.payload = text("now");
    CHECK_STATUS(fastmq_request(client, &request, 0, &batch), FASTMQ_OK,
                 "with a time-out of 0 an answer that needs no waiting still comes");
    fastmq_batch_free(batch);
    CHECK_NUMBER(asked, 11, "each request reached the responder once");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void timeouts(void)
{
    uint32_t number = 0;
    fastmq_subscription *responder = subscribe(client, "ask.slow");
    fastmq_queue *queue = fastmq_subscription_queue(responder);
    fastmq_requester *requester = open_requester(client, "ask.slow", 0);
    fastmq_outgoing request = outgoing("ask.slow", text("?"));
    fastmq_batch *batch = NULL;
    CHECK_STATUS(fastmq_request(client, &request, 0, &batch), FASTMQ_TIMEOUT,
                 "a responder with a queue cannot answer in no time: TIMEOUT");
    take_all(queue);
    NEED(fastmq_requester_submit(requester, bytes(&number, 4), 7, 200 * MILLISECOND) == FASTMQ_OK);
    uint64_t token = take_request(queue, &number);
    struct fate fate = one_fate(requester);
    CHECK(fate.status == FASTMQ_TIMEOUT && fate.token == 7, "a submitted request times out");
    uint64_t late = client_figures(client).late_answers;
    fastmq_status status = fastmq_reply(client, token, text("too late"));
    CHECK(status == FASTMQ_OK || status == FASTMQ_NOT_FOUND, "a late answer is no error");
    CHECK_STATUS(none_left(requester), FASTMQ_AGAIN, "it reaches nobody");
    CHECK_NUMBER(client_figures(client).late_answers, late + 1, "and is counted");
    CHECK_NUMBER(fastmq_requester_in_flight(requester), 0, "nothing is in flight any more");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void replies(void)
{
    uint32_t number = 0;
    fastmq_subscription *responder = subscribe(client, "ask.twice");
    fastmq_queue *queue = fastmq_subscription_queue(responder);
    fastmq_requester *requester = open_requester(client, "ask.twice", 0);
    NEED(submit(requester, 1) == FASTMQ_OK);
    uint64_t token = take_request(queue, &number);
    CHECK_STATUS(fastmq_reply(client, token, bytes(&number, 4)), FASTMQ_OK,
                 "a reply after its batch was freed");
    fastmq_status status = fastmq_reply(client, token, text("again"));
    CHECK(status == FASTMQ_OK || status == FASTMQ_NOT_FOUND, "a second reply is no error");
    struct fate fate = one_fate(requester);
    CHECK(fate.token == 1 && fate.status == FASTMQ_OK && fate.number == 1,
          "the asker gets the first");
    CHECK_STATUS(none_left(requester), FASTMQ_AGAIN, "and nothing else");

    NEED(submit(requester, 2) == FASTMQ_OK);
    token = take_request(queue, &number);
    fastmq_reply(client, token ^ (UINT64_C(1) << 40), text("forged"));
    fastmq_reply(client, UINT64_MAX, text("forged"));
    CHECK_STATUS(fastmq_reply(client, 0, text("nobody")), FASTMQ_INVALID,
                 "a reply to token 0 is INVALID");
    CHECK_STATUS(none_left(requester), FASTMQ_AGAIN, "a token of nobody reaches nobody");
    fastmq_headers *headers = NULL;
    NEED(fastmq_headers_open(&headers) == FASTMQ_OK);
    NEED(fastmq_headers_add(headers, text("reason"), text("busy day")) == FASTMQ_OK);
    fastmq_outgoing answer = outgoing("", text("body"));
    answer.headers = headers;
    CHECK_STATUS(fastmq_reply_message(client, token, &answer, FASTMQ_CONFLICT), FASTMQ_OK,
                 "a reply with headers and a status");
    fastmq_headers_close(headers);
    fastmq_batch *batch = NULL;
    NEED(fastmq_requester_receive(requester, 8, PATIENCE, &batch) == FASTMQ_OK);
    size_t count = 0;
    fastmq_bytes value;
    const fastmq_message *m = fastmq_batch_messages(batch, &count);
    CHECK(count == 1 && m[0].token == 2 && m[0].status == FASTMQ_CONFLICT
              && same(m[0].payload, "body"), "arrives with both");
    CHECK(fastmq_headers_get(m[0].headers, text("reason"), &value) == FASTMQ_OK
              && same(value, "busy day"), "the header can be read");
    fastmq_batch_free(batch);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void busy(void)
{
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    fastmq_subscription *responder = subscribe_on(client, "ask.busy", queue, 0);
    fastmq_requester *requester = open_requester(client, "ask.busy", 1000);
    uint32_t sent = 0, refused = 0, wrong = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        refused += submit(requester, i) != FASTMQ_OK;
        sent++;
    }
    CHECK_NUMBER(refused, 0, "the room of the responder's queue does not refuse a submit");
    uint32_t answered = answer_all(queue), busies = 0, fine = 0;
    for (uint32_t i = 0; i < sent; i++) {
        struct fate fate = one_fate(requester);
        busies += fate.status == FASTMQ_BUSY;
        fine += fate.status == FASTMQ_OK;
        wrong += fate.status == FASTMQ_OK && fate.number != fate.token;
    }
    CHECK(busies >= 1 && fine >= 1, "what finds no room is answered BUSY, the rest OK");
    CHECK(busies + fine == sent && fine == answered, "each request has exactly one of the two");
    CHECK_NUMBER(wrong, 0, "each answer belongs to its token");
    while (submit(requester, 1) == FASTMQ_OK && fastmq_requester_in_flight(requester) < 999) {
    }
    /* Through the requester: each writer has a lane of its own, and this thread's is empty. */
    char reply[8];
    size_t size = 0;
    CHECK_STATUS(fastmq_requester_request_into(requester, text("?"), PATIENCE, reply,
                                               sizeof reply, &size), FASTMQ_BUSY,
                 "a request that waits is told BUSY at once, too");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
    fastmq_queue_close(queue);
}

static void cancelled(void)
{
    enum { SENT = 10 };
    fastmq_subscription *responder = subscribe(client, "ask.cancel");
    fastmq_requester *requester = open_requester(client, "ask.cancel", 0);
    uint32_t number = 0, right = 0, tokens = 0;
    NEED(submit(requester, 1) == FASTMQ_OK);
    uint64_t token = take_request(fastmq_subscription_queue(responder), &number);
    CHECK_STATUS(fastmq_requester_cancel(requester, 1), FASTMQ_OK, "the asker cancels");
    struct fate fate = one_fate(requester);
    CHECK(fate.status == FASTMQ_CANCELLED && fate.token == 1, "the answer is CANCELLED");
    fastmq_reply(client, token, text("too late"));
    CHECK_STATUS(none_left(requester), FASTMQ_AGAIN, "a reply that comes later reaches nobody");
    CHECK_STATUS(fastmq_requester_cancel(requester, 1), FASTMQ_NOT_FOUND,
                 "there is nothing to cancel any more");
    for (uint32_t i = 0; i < SENT; i++) {
        NEED(submit(requester, i) == FASTMQ_OK);
    }
    fastmq_unsubscribe(responder);
    for (uint32_t i = 0; i < SENT; i++) {
        fate = one_fate(requester);
        right += fate.status == FASTMQ_CANCELLED;
        tokens += (uint32_t)fate.token;
    }
    CHECK_NUMBER(right, SENT, "requests in a responder's queue that closes are CANCELLED");
    CHECK_NUMBER(tokens, SENT * (SENT - 1) / 2, "each of them once");
    CHECK_NUMBER(fastmq_requester_in_flight(requester), 0, "nothing is in flight any more");
    fastmq_requester_close(requester);
}

static void cancelled_by_a_shared_queue(void)
{
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *responder = subscribe_on(client, "ask.shared", queue, 0);
    fastmq_requester *requester = open_requester(client, "ask.shared", 0);
    NEED(submit(requester, 3) == FASTMQ_OK);
    fastmq_queue_close(queue);
    struct fate fate = one_fate(requester);
    CHECK(fate.status == FASTMQ_CANCELLED && fate.token == 3,
          "so are those in a shared queue that closes");
    NEED(submit(requester, 4) == FASTMQ_OK);
    CHECK_NUMBER(one_fate(requester).status, FASTMQ_NO_RESPONDER,
                 "a subscription whose queue is closed is no responder");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void many_in_flight(void)
{
    enum { WINDOW = 512, ROUNDS = 20 };
    static uint8_t seen[WINDOW];
    fastmq_subscription *responder = subscribe(client, "ask.many.*");
    fastmq_queue *queue = fastmq_subscription_queue(responder);
    fastmq_requester *requester = open_requester(client, "ask.many.handle", WINDOW);
    uint32_t wrong = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        memset(seen, 0, sizeof seen);
        for (uint32_t i = 0; i < WINDOW; i++) {
            fastmq_outgoing request = outgoing("ask.many.message", bytes(&i, sizeof i));
            request.token = i;
            fastmq_status status = i % 3 == 0 ? submit(requester, i)
                : i % 3 == 1 ? fastmq_requester_submit_to(requester, text("ask.many.subject"),
                                                          request.payload, i, PATIENCE)
                : fastmq_requester_submit_message(requester, &request, PATIENCE);
            wrong += status != FASTMQ_OK;
        }
        wrong += fastmq_requester_in_flight(requester) != WINDOW;
        wrong += submit(requester, 9999) != FASTMQ_AGAIN;
        wrong += answer_all(queue) != WINDOW;
        for (uint32_t got = 0; got < WINDOW;) {
            fastmq_batch *batch = NULL;
            NEED(fastmq_requester_receive(requester, 100, PATIENCE, &batch) == FASTMQ_OK);
            size_t count = 0;
            const fastmq_message *m = fastmq_batch_messages(batch, &count);
            for (size_t i = 0; i < count; i++) {
                wrong += m[i].token >= WINDOW || seen[m[i].token]++ != 0
                    || m[i].status != FASTMQ_OK || number_of(&m[i]) != m[i].token;
            }
            got += (uint32_t)count;
            fastmq_batch_free(batch);
        }
        wrong += fastmq_requester_in_flight(requester) != 0;
    }
    CHECK_NUMBER(wrong, 0, "512 requests in flight: by handle, by subject and as messages, each "
                           "answered once, one more is AGAIN");
    CHECK_STATUS(submit(requester, 1), FASTMQ_OK, "an emptied window takes requests again");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
    CHECK_NUMBER(client_figures(client).requests >= WINDOW * ROUNDS, 1, "requests are counted");
}

struct server {
    fastmq_queue *queue;
    uint32_t served;
};

static void *serve(void *context)
{
    struct server *server = context;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(server->queue, 16, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        int is_last = 0;
        for (size_t i = 0; i < count; i++) {
            is_last |= same(m[i].payload, "stop");
            fastmq_reply(client, m[i].token, m[i].payload);
            server->served++;
        }
        fastmq_batch_free(batch);
        if (is_last) {
            break;
        }
    }
    return NULL;
}

static void across_threads(void)
{
    enum { ASKED = 2000 };
    fastmq_subscription *responder = subscribe(client, "ask.thread");
    struct server server = {fastmq_subscription_queue(responder), 0};
    fastmq_requester *requester = open_requester(client, "ask.thread", 0);
    pthread_t thread = start_thread(serve, &server);
    uint32_t wrong = 0, reply = 0;
    size_t size = 0;
    for (uint32_t i = 0; i < ASKED; i++) {
        fastmq_bytes question = bytes(&i, sizeof i);
        fastmq_status status = i % 2
            ? fastmq_request_into(client, text("ask.thread"), question, PATIENCE, &reply,
                                  sizeof reply, &size)
            : fastmq_requester_request_into(requester, question, PATIENCE, &reply, sizeof reply,
                                            &size);
        wrong += status != FASTMQ_OK || size != sizeof reply || reply != i;
    }
    char stopped[8];
    NEED(fastmq_request_into(client, text("ask.thread"), text("stop"), PATIENCE, stopped,
                             sizeof stopped, &size) == FASTMQ_OK);
    pthread_join(thread, NULL);
    CHECK_NUMBER(wrong, 0, "two threads: each question has its own answer");
    CHECK_NUMBER(server.served, ASKED + 1, "and reached the responder once");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

int main(void)
{
    check_begin();
    client = open_client();
    no_responder();
    inline_responder();
    timeouts();
    replies();
    busy();
    cancelled();
    cancelled_by_a_shared_queue();
    many_in_flight();
    across_threads();
    fastmq_close(client);
    return check_end();
}
