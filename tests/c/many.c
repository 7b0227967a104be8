/* Many answers to one request: of several responders, and of one that streams its replies.
 *
 * Decided here: each message of such a request has MORE but the last, which has END; one whose
 * `subscription_id` is 0 is the library's own. A responder answers once. A stream sends as far as
 * its credit goes; its end needs none. What ends it on one side is CANCELLED on the other.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

enum { MORE = FASTMQ_MESSAGE_MORE, END = FASTMQ_MESSAGE_END, RESPONDERS = 3 };

static fastmq_client *client;

static fastmq_many_options many(uint32_t answers_max, uint32_t credit)
{
    fastmq_many_options options = {.struct_size = sizeof options};
    options.answers_max = answers_max;
    options.credit = credit;
    return options;
}

static fastmq_status submit_with(fastmq_requester *requester, uint64_t token, uint64_t timeout_ns,
                                 const fastmq_many_options *options)
{
    fastmq_outgoing request = outgoing("", text("?"));
    request.token = token;
    return fastmq_requester_submit_many(requester, &request, timeout_ns, options);
}

static fastmq_status submit(fastmq_requester *requester, uint64_t token, uint32_t answers_max,
                            uint32_t credit)
{
    fastmq_many_options options = many(answers_max, credit);
    return submit_with(requester, token, FASTMQ_FOREVER, &options);
}

/* Takes the one request that waits; returns its token. */
static uint64_t taken(fastmq_subscription *responder)
{
    const fastmq_message *m = NULL;
    size_t count = 0;
    fastmq_batch *batch = take(fastmq_subscription_queue(responder), 2, &m, &count);
    uint64_t token = m[0].token;
    NEED(count == 1 && (m[0].flags & FASTMQ_MESSAGE_REQUEST) != 0);
    fastmq_batch_free(batch);
    return token;
}

struct word {
    uint64_t token;
    uint32_t status, flags, number, id;
};

/* Waits for one message of a request. */
static struct word next(fastmq_requester *requester)
{
    fastmq_batch *batch = NULL;
    struct word word = {UINT64_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    if (fastmq_requester_receive(requester, 1, PATIENCE, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        NEED(count == 1);
        word = (struct word){m[0].token, m[0].status, m[0].flags, UINT32_MAX,
                             m[0].subscription_id};
        if (m[0].payload.size >= sizeof word.number) {
            word.number = number_of(&m[0]);
        }
        fastmq_batch_free(batch);
    }
    return word;
}

static int is(struct word word, uint64_t token, uint32_t status, uint32_t flags)
{
    if (word.token == token && word.status == status && word.flags == flags) {
        return 1;
    }
    printf("# token %llu, %s, flags %u\n", (unsigned long long)word.token,
           fastmq_status_name(word.status), (unsigned)word.flags);
    return 0;
}

static int none_left(fastmq_requester *requester)
{
    fastmq_batch *batch = NULL;
    return fastmq_requester_receive(requester, 1, 0, &batch) == FASTMQ_AGAIN
        && fastmq_requester_in_flight(requester) == 0;
}

static fastmq_status reply_number(uint64_t token, uint32_t number)
{
    return fastmq_reply(client, token, bytes(&number, sizeof number));
}

static fastmq_status send_number(fastmq_reply_stream *stream, uint32_t number)
{
    return fastmq_reply_stream_send(stream, bytes(&number, sizeof number));
}

static fastmq_reply_stream *open_stream(uint64_t token)
{
    fastmq_reply_stream *stream = NULL;
    NEED(fastmq_reply_stream_open(client, token, &stream) == FASTMQ_OK && stream != NULL);
    return stream;
}

static fastmq_status credit_of(fastmq_reply_stream *stream)
{
    uint64_t replies = 0;
    return fastmq_reply_stream_credit(stream, &replies);
}

/* several responders */

static void first_answers(void)
{
    fastmq_subscription *responders[RESPONDERS];
    fastmq_requester *requester = open_requester(client, "many.first", 0);
    uint64_t late = client_figures(client).late_answers;
    for (int i = 0; i < RESPONDERS; i++) {
        responders[i] = subscribe(client, "many.first");
    }
    NEED(submit(requester, 7, 2, 0) == FASTMQ_OK);
    for (uint32_t i = 0; i < RESPONDERS; i++) {
        NEED(reply_number(taken(responders[i]), i) == FASTMQ_OK);
    }
    struct word word = next(requester);
    CHECK(is(word, 7, FASTMQ_OK, MORE) && word.number == 0, "the first of two answers has MORE");
    CHECK_NUMBER(word.id, fastmq_subscription_id(responders[0]), "and says whose it is");
    word = next(requester);
    CHECK(is(word, 7, FASTMQ_OK, END) && word.number == 1, "the second has END");
    CHECK(none_left(requester), "the third reaches nobody");
    CHECK_NUMBER(client_figures(client).late_answers, late + 1, "and is counted");

    NEED(submit(requester, 8, 100, 0) == FASTMQ_OK);
    for (uint32_t i = 0; i < RESPONDERS; i++) {
        NEED(reply_number(taken(responders[i]), i) == FASTMQ_OK);
    }
    uint32_t right = 0;
    for (uint32_t i = 0; i < RESPONDERS; i++) {
        right += is(next(requester), 8, FASTMQ_OK, i + 1 < RESPONDERS ? MORE : END);
    }
    CHECK(right == RESPONDERS && none_left(requester),
          "more answers than responders end with the last responder");

    NEED(submit(requester, 9, FASTMQ_ANSWERS_ALL, 0) == FASTMQ_OK);
    uint64_t token = taken(responders[0]);
    NEED(reply_number(token, 0) == FASTMQ_OK && reply_number(token, 0) == FASTMQ_OK);
    NEED(reply_number(taken(responders[1]), 1) == FASTMQ_OK);
    CHECK(is(next(requester), 9, FASTMQ_OK, MORE), "a responder that answers twice");
    word = next(requester);
    CHECK(is(word, 9, FASTMQ_OK, MORE) && word.number == 1, "is heard once");
    fastmq_unsubscribe(responders[2]);
    word = next(requester);
    CHECK(is(word, 9, FASTMQ_END, END) && word.id == 0 && none_left(requester),
          "with the last responder gone it ends: END, by nobody");

    NEED(submit_with(requester, 10, FASTMQ_FOREVER, NULL) == FASTMQ_OK);
    NEED(reply_number(taken(responders[1]), 1) == FASTMQ_OK);
    CHECK(is(next(requester), 10, FASTMQ_OK, END), "without options one answer is wanted");
    take_all(fastmq_subscription_queue(responders[0]));
    fastmq_unsubscribe(responders[0]);
    fastmq_unsubscribe(responders[1]);
    NEED(submit(requester, 11, 3, 0) == FASTMQ_OK);
    CHECK(is(next(requester), 11, FASTMQ_NO_RESPONDER, END), "nobody is NO_RESPONDER, with END");
    fastmq_requester_close(requester);
}

static void deadlines(void)
{
    fastmq_subscription *silent = subscribe(client, "many.late");
    fastmq_subscription *other = subscribe(client, "many.late");
    fastmq_requester *requester = open_requester(client, "many.late", 0);
    fastmq_many_options options = many(FASTMQ_ANSWERS_ALL, 0);
    NEED(submit_with(requester, 1, 100 * MILLISECOND, &options) == FASTMQ_OK);
    NEED(reply_number(taken(other), 1) == FASTMQ_OK);
    CHECK(is(next(requester), 1, FASTMQ_OK, MORE), "answers come until the deadline");
    CHECK(is(next(requester), 1, FASTMQ_TIMEOUT, END) && none_left(requester), "then TIMEOUT");
    options.gap_ns = 50 * MILLISECOND;
    NEED(submit_with(requester, 2, FASTMQ_FOREVER, &options) == FASTMQ_OK);
    CHECK(is(next(requester), 2, FASTMQ_TIMEOUT, END), "so it is after too long a gap");
    NEED(submit(requester, 3, 2, 0) == FASTMQ_OK);
    CHECK_STATUS(fastmq_requester_cancel(requester, 3), FASTMQ_OK, "the asker cancels");
    CHECK_STATUS(fastmq_requester_cancel(requester, 3), FASTMQ_NOT_FOUND, "once");
    CHECK(is(next(requester), 3, FASTMQ_CANCELLED, END) && none_left(requester), "CANCELLED");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(silent);
    fastmq_unsubscribe(other);
}

static void answer_inline(const fastmq_message *message, void *context)
{
    reply_number(message->token, *(const uint32_t *)context);
}

static void one_call(void)
{
    uint32_t numbers[2] = {1, 2};
    fastmq_outgoing request = outgoing("many.call", text("?"));
    fastmq_batch *batch = NULL;
    size_t count = 0;
    CHECK_STATUS(fastmq_request_many(client, &request, 5, FASTMQ_FOREVER, &batch),
                 FASTMQ_NO_RESPONDER, "one call for many answers has the fates of one");
    CHECK(batch == NULL, "and no batch then");
    fastmq_subscription *here[2];
    for (int i = 0; i < 2; i++) {
        here[i] = subscribe_call(client, "many.call", FASTMQ_DELIVERY_INLINE, answer_inline,
                                 &numbers[i]);
    }
    CHECK_STATUS(fastmq_request_many(client, &request, FASTMQ_ANSWERS_ALL, PATIENCE, &batch),
                 FASTMQ_OK, "it waits for all who have the request");
    const fastmq_message *m = fastmq_batch_messages(batch, &count);
    CHECK(count == 2 && number_of(&m[0]) == 1 && number_of(&m[1]) == 2 && m[0].flags == MORE
              && m[1].flags == END, "and gives a batch of their answers");
    fastmq_batch_free(batch);
    CHECK_STATUS(fastmq_request_many(client, &request, 1, PATIENCE, &batch), FASTMQ_OK,
                 "or for as many as are wanted");
    fastmq_batch_messages(batch, &count);
    CHECK_NUMBER(count, 1, "one");
    fastmq_batch_free(batch);
    fastmq_subscription *silent = subscribe(client, "many.call");
    CHECK_STATUS(fastmq_request_many(client, &request, FASTMQ_ANSWERS_ALL, 20 * MILLISECOND,
                                     &batch), FASTMQ_OK, "or until the time-out");
    m = fastmq_batch_messages(batch, &count);
    CHECK(count == 3 && m[2].status == FASTMQ_TIMEOUT && m[2].flags == END
              && m[2].subscription_id == 0, "whose last message says so");
    fastmq_batch_free(batch);
    fastmq_unsubscribe(here[0]);
    fastmq_unsubscribe(here[1]);
    CHECK_STATUS(fastmq_request_many(client, &request, 2, 0, &batch), FASTMQ_TIMEOUT,
                 "no answer in time is TIMEOUT");
    fastmq_unsubscribe(silent);
}

/* streams */

static void one_stream(void)
{
    enum { CREDIT = 4, REPLIES = 100 };
    fastmq_subscription *responder = subscribe(client, "many.stream");
    fastmq_requester *requester = open_requester(client, "many.stream", 0);
    uint64_t replies = 77;
    NEED(submit(requester, 1, 1, CREDIT) == FASTMQ_OK);
    fastmq_reply_stream *stream = open_stream(taken(responder));
    CHECK(fastmq_reply_stream_credit(stream, &replies) == FASTMQ_OK && replies == CREDIT,
          "a stream begins with the credit of its request");
    uint32_t sent = 0, received = 0, wrong = 0, again = 0;
    while (received < REPLIES) {
        while (sent < REPLIES && send_number(stream, sent) == FASTMQ_OK) {
            sent++;
        }
        again += sent < REPLIES;
        wrong += sent - received > CREDIT;
        struct word word = next(requester);
        wrong += !is(word, 1, FASTMQ_OK, MORE) || word.number != received;
        received++;
    }
    CHECK(wrong == 0 && again > 0, "it keeps its order and never gets ahead of its credit");
    CHECK_STATUS(fastmq_reply_stream_end(stream, FASTMQ_OK), FASTMQ_OK, "it ends");
    CHECK_STATUS(fastmq_reply_stream_end(stream, FASTMQ_OK), FASTMQ_MISUSE, "once");
    CHECK_STATUS(send_number(stream, 1), FASTMQ_MISUSE, "and takes no more replies");
    CHECK_STATUS(credit_of(stream), FASTMQ_MISUSE, "nor has it credit");
    CHECK(is(next(requester), 1, FASTMQ_END, END) && none_left(requester), "the asker gets END");
    fastmq_reply_stream_close(stream);

    NEED(submit(requester, 2, 1, 1) == FASTMQ_OK);
    stream = open_stream(taken(responder));
    NEED(send_number(stream, 5) == FASTMQ_OK);
    CHECK_STATUS(send_number(stream, 6), FASTMQ_AGAIN, "without credit it is AGAIN");
    CHECK_STATUS(fastmq_reply_stream_send_wait(stream, text("x"), 20 * MILLISECOND),
                 FASTMQ_TIMEOUT, "or, after a while, TIMEOUT");
    CHECK_STATUS(fastmq_reply_stream_end(stream, 4711), FASTMQ_INVALID, "a made-up status");
    CHECK_STATUS(fastmq_reply_stream_end(stream, FASTMQ_CONFLICT), FASTMQ_OK,
                 "its end needs no credit, also with an error");
    CHECK(is(next(requester), 2, FASTMQ_OK, MORE) && is(next(requester), 2, FASTMQ_CONFLICT, END),
          "which comes after what was sent");
    fastmq_reply_stream_close(stream);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void manual_credit(void)
{
    fastmq_subscription *responder = subscribe(client, "many.manual");
    fastmq_requester *requester = open_requester(client, "many.manual", 0);
    fastmq_many_options options = many(1, 1);
    options.credit_mode = FASTMQ_CREDIT_MANUAL;
    NEED(submit_with(requester, 1, FASTMQ_FOREVER, &options) == FASTMQ_OK);
    fastmq_reply_stream *stream = open_stream(taken(responder));
    NEED(send_number(stream, 1) == FASTMQ_OK && next(requester).number == 1);
    CHECK_STATUS(send_number(stream, 2), FASTMQ_AGAIN, "manual credit does not come by itself");
    CHECK_STATUS(fastmq_requester_grant(requester, 1, 2), FASTMQ_OK, "it is granted");
    CHECK(send_number(stream, 2) == FASTMQ_OK && send_number(stream, 3) == FASTMQ_OK
              && send_number(stream, 4) == FASTMQ_AGAIN, "as much as was said");
    CHECK_STATUS(fastmq_requester_grant(requester, 1, 0), FASTMQ_INVALID, "0 grants nothing");
    CHECK_STATUS(fastmq_requester_grant(requester, 1, UINT32_MAX), FASTMQ_INVALID, "too much");
    CHECK_STATUS(fastmq_requester_grant(requester, 9, 1), FASTMQ_NOT_FOUND, "to nobody");
    options.credit = (1 << 20) + 1;
    CHECK_STATUS(submit_with(requester, 2, 0, &options), FASTMQ_INVALID, "credit has a limit");
    options = many(1, 1);
    options.credit_mode = 2;
    CHECK_STATUS(submit_with(requester, 2, 0, &options), FASTMQ_INVALID, "and two modes");
    options = many(1, 1);
    options.struct_size = 8;
    CHECK_STATUS(submit_with(requester, 2, 0, &options), FASTMQ_INVALID, "a wrong struct_size");
    fastmq_reply_stream_close(stream);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void both_cancels(void)
{
    fastmq_subscription *responder = subscribe(client, "many.cancel");
    fastmq_requester *requester = open_requester(client, "many.cancel", 0);
    NEED(submit(requester, 1, 1, 8) == FASTMQ_OK);
    fastmq_reply_stream *stream = open_stream(taken(responder));
    NEED(fastmq_requester_cancel(requester, 1) == FASTMQ_OK);
    CHECK_STATUS(credit_of(stream), FASTMQ_CANCELLED, "the asker's cancel is seen without sending");
    CHECK_STATUS(send_number(stream, 1), FASTMQ_CANCELLED, "and by sending");
    CHECK_STATUS(fastmq_reply_stream_send_wait(stream, text("x"), FASTMQ_FOREVER),
                 FASTMQ_CANCELLED, "nobody waits for what will not come");
    CHECK_STATUS(fastmq_reply_stream_end(stream, FASTMQ_OK), FASTMQ_CANCELLED, "nor ends it");
    fastmq_reply_stream_close(stream);
    CHECK(is(next(requester), 1, FASTMQ_CANCELLED, END), "the asker gets CANCELLED");

    NEED(submit(requester, 2, 1, 8) == FASTMQ_OK);
    stream = open_stream(taken(responder));
    NEED(send_number(stream, 1) == FASTMQ_OK);
    fastmq_reply_stream_close(stream);
    CHECK(is(next(requester), 2, FASTMQ_OK, MORE)
              && is(next(requester), 2, FASTMQ_CANCELLED, END),
          "a responder that closes its stream without an end cancels it, after what it sent");

    NEED(submit(requester, 3, 1, 8) == FASTMQ_OK);
    stream = open_stream(taken(responder));
    fastmq_unsubscribe(responder);
    CHECK(is(next(requester), 3, FASTMQ_CANCELLED, END), "so does one that unsubscribes");
    CHECK_STATUS(send_number(stream, 1), FASTMQ_CANCELLED, "whose stream has ended");
    fastmq_reply_stream_close(stream);

    responder = subscribe(client, "many.cancel");
    NEED(submit(requester, 4, 1, 8) == FASTMQ_OK);
    NEED(submit(requester, 5, 1, 8) == FASTMQ_OK);
    fastmq_batch *batch = NULL;
    size_t count = 0;
    const fastmq_message *m = NULL;
    batch = take(fastmq_subscription_queue(responder), 2, &m, &count);
    NEED(count == 2);
    uint64_t second = m[1].token;
    stream = open_stream(m[0].token);
    fastmq_batch_free(batch);
    fastmq_requester_close(requester);
    CHECK_STATUS(send_number(stream, 1), FASTMQ_CANCELLED, "an asker that closes cancels");
    fastmq_reply_stream_close(stream);
    CHECK_STATUS(fastmq_reply_stream_open(client, second, &stream), FASTMQ_NOT_FOUND,
                 "and cannot be streamed to");
    CHECK(stream == NULL, "there is no handle then");
    fastmq_unsubscribe(responder);
}

static void wrong_streams(void)
{
    fastmq_subscription *responder = subscribe(client, "many.wrong");
    fastmq_requester *requester = open_requester(client, "many.wrong", 0);
    fastmq_reply_stream *stream = NULL, *second = NULL;
    CHECK_STATUS(fastmq_reply_stream_open(client, 0, &stream), FASTMQ_INVALID, "token 0");
    CHECK_STATUS(fastmq_reply_stream_open(client, UINT64_MAX, &stream), FASTMQ_NOT_FOUND,
                 "a token of nobody");
    CHECK_STATUS(fastmq_reply_stream_open(client, 1, NULL), FASTMQ_INVALID, "no out pointer");
    NEED(fastmq_requester_submit(requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    uint64_t token = taken(responder);
    CHECK_STATUS(fastmq_reply_stream_open(client, token, &stream), FASTMQ_UNSUPPORTED,
                 "a request for one answer takes no stream");
    NEED(submit(requester, 2, 2, 0) == FASTMQ_OK);
    CHECK_STATUS(fastmq_reply_stream_open(client, taken(responder), &stream), FASTMQ_UNSUPPORTED,
                 "nor does one without credit");
    CHECK_STATUS(fastmq_requester_grant(requester, 2, 1), FASTMQ_INVALID, "and gets none");
    NEED(submit(requester, 3, 1, 2) == FASTMQ_OK);
    token = taken(responder);
    stream = open_stream(token);
    CHECK_STATUS(fastmq_reply_stream_open(client, token, &second), FASTMQ_EXISTS,
                 "a stream is opened once");
    CHECK_STATUS(fastmq_reply_stream_credit(stream, NULL), FASTMQ_INVALID, "no out pointer");
    CHECK_STATUS(fastmq_reply_stream_send(stream, bytes(NULL, 3)), FASTMQ_INVALID, "no payload");
    CHECK_STATUS(fastmq_reply_stream_send_message(stream, NULL), FASTMQ_INVALID, "no message");
    fastmq_headers *headers = NULL;
    NEED(fastmq_headers_open(&headers) == FASTMQ_OK);
    NEED(fastmq_headers_add(headers, text("page"), text("1")) == FASTMQ_OK);
    fastmq_outgoing reply = outgoing("", text("body"));
    reply.headers = headers;
    CHECK_STATUS(fastmq_reply_stream_send_message(stream, &reply), FASTMQ_OK, "headers may go");
    fastmq_headers_close(headers);
    fastmq_batch *batch = NULL;
    size_t count = 0;
    fastmq_bytes value;
    NEED(fastmq_requester_receive(requester, 1, PATIENCE, &batch) == FASTMQ_OK);
    const fastmq_message *m = fastmq_batch_messages(batch, &count);
    CHECK(same(m[0].payload, "body")
              && fastmq_headers_get(m[0].headers, text("page"), &value) == FASTMQ_OK
              && same(value, "1"), "with a reply");
    fastmq_batch_free(batch);
    NEED(reply_number(token, 9) == FASTMQ_OK);
    struct word word = next(requester);
    CHECK(is(word, 3, FASTMQ_OK, END) && word.number == 9, "a plain answer ends a stream");
    CHECK_STATUS(send_number(stream, 1), FASTMQ_CANCELLED, "for its responder too");
    fastmq_reply_stream_close(stream);
    fastmq_reply_stream_close(stream);
    CHECK_STATUS(send_number(stream, 1), FASTMQ_MISUSE, "a closed stream is seen");
    CHECK_STATUS(send_number(NULL, 1), FASTMQ_INVALID, "NULL too");
    fastmq_reply_stream_close(NULL);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

struct inline_stream {
    fastmq_reply_stream *stream;
    fastmq_status sent, wait;
};

static void stream_inline(const fastmq_message *message, void *context)
{
    struct inline_stream *mine = context;
    mine->stream = open_stream(message->token);
    mine->sent = send_number(mine->stream, 1);
    mine->wait = fastmq_reply_stream_send_wait(mine->stream, text("x"), FASTMQ_FOREVER);
}

static void inline_responder(void)
{
    struct inline_stream mine = {NULL, FASTMQ_INTERNAL, FASTMQ_INTERNAL};
    fastmq_subscription *responder = subscribe_call(client, "many.inline", FASTMQ_DELIVERY_INLINE,
                                                    stream_inline, &mine);
    fastmq_requester *requester = open_requester(client, "many.inline", 0);
    NEED(submit(requester, 1, 1, 1) == FASTMQ_OK);
    CHECK_STATUS(mine.sent, FASTMQ_OK, "an inline responder streams inside the submit");
    CHECK_STATUS(mine.wait, FASTMQ_MISUSE, "but must not wait for its own asker");
    CHECK(is(next(requester), 1, FASTMQ_OK, MORE), "its reply travels to the asker");
    CHECK_STATUS(send_number(mine.stream, 2), FASTMQ_OK, "and more when there is credit");
    fastmq_reply_stream_end(mine.stream, FASTMQ_OK);
    fastmq_reply_stream_close(mine.stream);
    CHECK(is(next(requester), 1, FASTMQ_OK, MORE) && is(next(requester), 1, FASTMQ_END, END),
          "up to the end");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

/* two threads */

enum { WAITED = 2000 };

static void *stream_all(void *context)
{
    fastmq_subscription *responder = context;
    fastmq_batch *batch = NULL;
    size_t count = 0, failed = 0;
    fastmq_status status = fastmq_receive(fastmq_subscription_queue(responder), 1, PATIENCE,
                                          &batch);
    if (status != FASTMQ_OK) {
        return NULL;
    }
    uint64_t token = fastmq_batch_messages(batch, &count)[0].token;
    fastmq_batch_free(batch);
    fastmq_reply_stream *stream = NULL;
    failed += fastmq_reply_stream_open(client, token, &stream) != FASTMQ_OK;
    for (uint32_t i = 0; i < WAITED; i++) {
        failed += fastmq_reply_stream_send_wait(stream, bytes(&i, sizeof i), PATIENCE)
            != FASTMQ_OK;
    }
    do {
        status = fastmq_reply_stream_send_wait(stream, text("more"), PATIENCE);
    } while (status == FASTMQ_OK);
    fastmq_reply_stream_close(stream);
    return failed == 0 && status == FASTMQ_CANCELLED ? context : NULL;
}

static void waiting(void)
{
    fastmq_subscription *responder = subscribe(client, "many.wait");
    fastmq_requester *requester = open_requester(client, "many.wait", 0);
    uint32_t wrong = 0;
    void *end = NULL;
    NEED(submit(requester, 1, 1, 3) == FASTMQ_OK);
    pthread_t thread = start_thread(stream_all, responder);
    for (uint32_t i = 0; i < WAITED; i++) {
        struct word word = next(requester);
        wrong += !is(word, 1, FASTMQ_OK, MORE) || word.number != i;
    }
    NEED(fastmq_requester_cancel(requester, 1) == FASTMQ_OK);
    pthread_join(thread, &end);
    CHECK_NUMBER(wrong, 0, "a responder that waits for credit sends all, in order");
    CHECK(end == responder, "and hears of the cancel while it waits");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void loop(void)
{
    fastmq_subscription *responder = subscribe(client, "many.loop");
    fastmq_requester *requester = open_requester(client, "many.loop", 0);
    uint32_t ready = 0;
    NEED(fastmq_dispatch(client, 0, 0, &ready) == FASTMQ_OK);
    NEED(submit(requester, 1, 1, 1) == FASTMQ_OK);
    fastmq_reply_stream *stream = open_stream(taken(responder));
    NEED(send_number(stream, 1) == FASTMQ_OK && send_number(stream, 2) == FASTMQ_AGAIN);
    fastmq_dispatch(client, 0, 0, &ready);
    CHECK((ready & FASTMQ_READY_ROOM) == 0, "without credit a loop is told of no room");
    NEED(is(next(requester), 1, FASTMQ_OK, MORE));
    fastmq_dispatch(client, 0, 0, &ready);
    CHECK((ready & FASTMQ_READY_ROOM) != 0, "with credit it is");
    CHECK_STATUS(send_number(stream, 2), FASTMQ_OK, "and sends");
    fastmq_reply_stream_end(stream, FASTMQ_OK);
    fastmq_dispatch(client, 0, 0, &ready);
    CHECK((ready & FASTMQ_READY_ANSWERS) != 0, "the asker's loop hears of the end");
    fastmq_reply_stream_close(stream);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

static void closed(void)
{
    fastmq_subscription *responder = subscribe(client, "many.close");
    fastmq_requester *requester = open_requester(client, "many.close", 0);
    fastmq_many_options options = many(1, 1);
    fastmq_outgoing request = outgoing("many.close", text("?"));
    fastmq_reply_stream *none = NULL;
    fastmq_batch *batch = NULL;
    NEED(submit(requester, 1, 1, 1) == FASTMQ_OK);
    uint64_t token = taken(responder);
    fastmq_reply_stream *stream = open_stream(token);
    fastmq_close(client);
    CHECK_STATUS(send_number(stream, 1), FASTMQ_CLOSED, "a closed client closes its streams");
    CHECK_STATUS(credit_of(stream), FASTMQ_CLOSED, "for every call");
    CHECK_STATUS(fastmq_reply_stream_end(stream, FASTMQ_OK), FASTMQ_CLOSED, "the end too");
    CHECK_STATUS(submit_with(requester, 2, 0, &options), FASTMQ_CLOSED, "and asks nobody");
    CHECK_STATUS(fastmq_requester_grant(requester, 1, 1), FASTMQ_CLOSED, "grants nothing");
    CHECK_STATUS(fastmq_reply_stream_open(client, token, &none), FASTMQ_MISUSE, "opens nothing");
    CHECK_STATUS(fastmq_request_many(client, &request, 1, 0, &batch), FASTMQ_MISUSE,
                 "and gathers nothing");
    fastmq_reply_stream_close(stream);
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
}

int main(void)
{
    check_begin();
    client = open_client();
    first_answers();
    deadlines();
    one_call();
    one_stream();
    manual_credit();
    both_cancels();
    wrong_streams();
    inline_responder();
    waiting();
    loop();
    closed();
    return check_end();
}
