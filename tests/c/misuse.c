/* Bad arguments and misuse: each call refuses with the right status and a sentence, nothing is
 * lost and the process lives.
 *
 * Decided here: NULL is INVALID; a value that never was a handle, or is a handle of another type,
 * is INVALID or MISUSE (a slot of that index may have existed); a handle that was closed is MISUSE;
 * a handle whose parent was closed is CLOSED. A subject that breaks a rule, its length included,
 * is INVALID; a payload or headers above a limit are TOO_LARGE.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "calls.h"

#define GARBAGE(type) ((type *)(uintptr_t)0x1234)
#define CHECK_REFUSED(call, name) CHECK(is_refusal(call), (name))

static int is_refusal(fastmq_status status)
{
    return status == FASTMQ_INVALID || status == FASTMQ_MISUSE;
}

static void null_and_garbage_handles(void)
{
    CHECK_NUMBER(client_calls(NULL, is_invalid), 0, "a NULL client is INVALID in every call");
    CHECK_NUMBER(queue_calls(NULL, is_invalid), 0, "a NULL queue is INVALID in every call");
    CHECK_NUMBER(subscription_calls(NULL, is_invalid), 0, "so is a NULL subscription");
    CHECK_NUMBER(publisher_calls(NULL, is_invalid), 0, "so is a NULL publisher");
    CHECK_NUMBER(requester_calls(NULL, is_invalid), 0, "so is a NULL requester");
    CHECK_NUMBER(batch_calls(NULL, is_invalid), 0, "so is a NULL batch");
    CHECK_NUMBER(stream_calls(NULL, is_invalid), 0, "so is a NULL reply stream");
    CHECK_NUMBER(client_calls(GARBAGE(fastmq_client), is_refusal), 0, "a garbage client");
    CHECK_NUMBER(queue_calls(GARBAGE(fastmq_queue), is_refusal), 0, "a garbage queue");
    CHECK_NUMBER(subscription_calls(GARBAGE(fastmq_subscription), is_refusal), 0,
                 "a garbage subscription");
    CHECK_NUMBER(publisher_calls(GARBAGE(fastmq_publisher), is_refusal), 0,
                 "a garbage publisher");
    CHECK_NUMBER(requester_calls(GARBAGE(fastmq_requester), is_refusal), 0,
                 "a garbage requester");
    CHECK_NUMBER(batch_calls(GARBAGE(fastmq_batch), is_refusal), 0, "a garbage batch is refused");
    CHECK_NUMBER(stream_calls(GARBAGE(fastmq_reply_stream), is_refusal), 0,
                 "a garbage reply stream");
    CHECK_NUMBER(queue_calls((fastmq_queue *)UINTPTR_MAX, is_refusal), 0, "all bits set, too");
    fastmq_close(NULL);
    fastmq_queue_close(NULL);
    fastmq_unsubscribe(NULL);
    fastmq_publisher_close(NULL);
    fastmq_requester_close(NULL);
    fastmq_reply_stream_close(NULL);
    fastmq_batch_free(NULL);
    fastmq_headers_close(NULL);
    fastmq_headers_clear(NULL);
    CHECK(1, "every destroyer takes NULL");
    fastmq_close(GARBAGE(fastmq_client));
    fastmq_queue_close(GARBAGE(fastmq_queue));
    fastmq_unsubscribe(GARBAGE(fastmq_subscription));
    fastmq_publisher_close(GARBAGE(fastmq_publisher));
    fastmq_requester_close(GARBAGE(fastmq_requester));
    fastmq_reply_stream_close(GARBAGE(fastmq_reply_stream));
    fastmq_batch_free(GARBAGE(fastmq_batch));
    fastmq_headers_close(GARBAGE(fastmq_headers));
    fastmq_headers_clear(GARBAGE(fastmq_headers));
    CHECK(1, "every destroyer survives garbage");
}

static void handles_of_another_type(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_publisher *publisher = open_publisher(client, "misuse");
    CHECK_NUMBER(client_calls((fastmq_client *)queue, is_refusal), 0, "a queue is no client");
    CHECK_NUMBER(queue_calls((fastmq_queue *)client, is_refusal), 0, "a client is no queue");
    CHECK_NUMBER(publisher_calls((fastmq_publisher *)queue, is_refusal), 0,
                 "a queue is no publisher");
    CHECK_NUMBER(requester_calls((fastmq_requester *)publisher, is_refusal), 0,
                 "a publisher is no requester");
    CHECK_NUMBER(stream_calls((fastmq_reply_stream *)publisher, is_refusal), 0,
                 "nor a reply stream");
    fastmq_publisher_close((fastmq_publisher *)queue);
    fastmq_close((fastmq_client *)queue);
    fastmq_batch_free((fastmq_batch *)queue);
    fastmq_batch *batch = NULL;
    CHECK_STATUS(fastmq_receive(queue, 1, 0, &batch), FASTMQ_AGAIN,
                 "a destroyer of another type closes nothing");

    fastmq_client *other = open_client();
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_subscription *subscription = NULL;
    options.queue = queue;
    CHECK_REFUSED(fastmq_subscribe(other, subject, &options, &subscription),
                  "a queue of another client is refused");
    options.queue = GARBAGE(fastmq_queue);
    CHECK_REFUSED(fastmq_subscribe(client, subject, &options, &subscription),
                  "a garbage queue in the options is refused");
    fastmq_outgoing message = outgoing("misuse", payload);
    message.headers = GARBAGE(fastmq_headers);
    CHECK_REFUSED(fastmq_publish_message(client, &message), "so are garbage headers");
    fastmq_close(other);
    fastmq_publisher_close(publisher);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

static void null_out_pointers(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_requester *requester = open_requester(client, "misuse", 0);
    fastmq_outgoing message = outgoing("misuse", payload);
    char reply[8];
    int wrong = 0;
    wrong += !is_invalid(fastmq_open(NULL, NULL));
    wrong += !is_invalid(fastmq_queue_open(client, NULL, NULL));
    wrong += !is_invalid(fastmq_subscribe(client, subject, NULL, NULL));
    wrong += !is_invalid(fastmq_publisher_open(client, subject, NULL));
    wrong += !is_invalid(fastmq_requester_open(client, NULL, NULL));
    wrong += !is_invalid(fastmq_receive(queue, 1, 0, NULL));
    wrong += !is_invalid(fastmq_requester_receive(requester, 1, 0, NULL));
    wrong += !is_invalid(fastmq_request(client, &message, 0, NULL));
    wrong += !is_invalid(fastmq_request_into(client, subject, payload, 0, reply, 8, NULL));
    wrong += !is_invalid(fastmq_client_statistics_read(client, NULL));
    wrong += !is_invalid(fastmq_queue_statistics_read(queue, NULL));
    wrong += !is_invalid(fastmq_headers_open(NULL));
    CHECK_NUMBER(wrong, 0, "a NULL out pointer is INVALID, and the call has done nothing");
    CHECK(strstr(fastmq_last_error(), "out") != NULL, "the sentence names the argument");

    wrong = 0;
    wrong += !is_invalid(fastmq_publish_message(client, NULL));
    wrong += !is_invalid(fastmq_publish_wait(client, NULL, 0));
    wrong += !is_invalid(fastmq_request(client, NULL, 0, &(fastmq_batch *){NULL}));
    wrong += !is_invalid(fastmq_requester_submit_message(requester, NULL, 0));
    wrong += !is_invalid(fastmq_publish_batch(client, NULL, 3, &(size_t){0}));
    wrong += !is_invalid(fastmq_request_into(client, subject, payload, 0, NULL, 8,
                                             &(size_t){0}));
    CHECK_NUMBER(wrong, 0, "a NULL message or buffer with a size is INVALID");

    fastmq_batch *batch = GARBAGE(fastmq_batch);
    fastmq_receive(queue, 1, 0, &batch);
    CHECK(batch == NULL, "an out pointer is NULL after a failure, whatever it was before");
    fastmq_subscription *subscription = GARBAGE(fastmq_subscription);
    fastmq_subscribe(client, text("a..b"), NULL, &subscription);
    CHECK(subscription == NULL, "also when the subject was at fault");
    CHECK_NUMBER(client_figures(client).subscriptions, 0, "and nothing was subscribed");
    fastmq_requester_close(requester);
    fastmq_queue_close(queue);
    fastmq_close(client);
}

static void subjects(void)
{
    static const char *const malformed[] = {
        "", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\nb", " a", "\x7f" "a", "a\xff", "\xc3",
        "a.\xed\xa0\x80", "\xf8\x88\x80\x80\x80",
    };
    static const char *const wildcards[] = {"*", ">", "a.*", "a.>", "*.a", "a.*.b"};
    static const char *const bad_patterns[] = {"a.>.b", ">.a", "a..*", "*.", ".>"};
    char longest[1025];
    char deep[131];
    fastmq_client *client = open_client();
    fastmq_publisher *publisher = NULL;
    fastmq_subscription *subscription = NULL;
    fastmq_requester *requester = open_requester(client, "", 0);
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        fastmq_bytes bad = text(malformed[i]);
        wrong += !is_invalid(fastmq_publish(client, bad, payload));
        wrong += !is_invalid(fastmq_publisher_open(client, bad, &publisher));
        wrong += !is_invalid(fastmq_subscribe(client, bad, NULL, &subscription));
        wrong += !is_invalid(fastmq_requester_submit_to(requester, bad, payload, 1, SECOND));
    }
    CHECK_NUMBER(wrong, 0, "an empty, malformed or non-UTF-8 subject is INVALID everywhere");
    CHECK_STATUS(fastmq_publish(client, bytes("a\0b", 3), payload), FASTMQ_INVALID,
                 "a NUL inside a subject is INVALID");
    CHECK_STATUS(fastmq_publish(client, bytes(NULL, 5), payload), FASTMQ_INVALID,
                 "a NULL subject with a size is INVALID");
    wrong = 0;
    for (size_t i = 0; i < sizeof wildcards / sizeof wildcards[0]; i++) {
        wrong += !is_invalid(fastmq_publish(client, text(wildcards[i]), payload));
        wrong += !is_invalid(fastmq_publisher_open(client, text(wildcards[i]), &publisher));
    }
    CHECK_NUMBER(wrong, 0, "a wildcard in a publish subject is INVALID");
    wrong = 0;
    for (size_t i = 0; i < sizeof bad_patterns / sizeof bad_patterns[0]; i++) {
        wrong += !is_invalid(fastmq_subscribe(client, text(bad_patterns[i]), NULL,
                                              &subscription));
    }
    CHECK_NUMBER(wrong, 0, "a pattern with > before its end, or an empty token, is INVALID");

    memset(longest, 'a', sizeof longest);
    CHECK_STATUS(fastmq_publish(client, bytes(longest, 1024), payload), FASTMQ_OK,
                 "a subject of 1,024 bytes is fine");
    CHECK_STATUS(fastmq_publish(client, bytes(longest, 1025), payload), FASTMQ_INVALID,
                 "one of 1,025 bytes is INVALID");
    CHECK(strstr(fastmq_last_error(), "1025") != NULL || strstr(fastmq_last_error(), "1,025"),
          "and the sentence says how long it was");
    for (size_t i = 0; i < sizeof deep; i++) {
        deep[i] = i % 2 == 0 ? 'a' : '.';
    }
    CHECK_STATUS(fastmq_publish(client, bytes(deep, 127), payload), FASTMQ_OK,
                 "a subject of 64 tokens is fine");
    CHECK_STATUS(fastmq_publish(client, bytes(deep, 129), payload), FASTMQ_INVALID,
                 "one of 65 tokens is INVALID");
    CHECK_STATUS(fastmq_publish(client, text("stra\xc3\x9f" "e.\xe6\x97\xa5"), payload), FASTMQ_OK,
                 "UTF-8 beyond ASCII is a subject");
    fastmq_requester_close(requester);
    fastmq_close(client);
}

static void payloads(void)
{
    fastmq_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    options.payload_max = 1024;
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    fastmq_publisher *publisher = open_publisher(client, "misuse");
    static const uint8_t block[1025];
    CHECK_STATUS(fastmq_publish(client, subject, bytes(block, 1024)), FASTMQ_OK,
                 "a payload as large as the limit is fine");
    CHECK_STATUS(fastmq_publish(client, subject, bytes(block, 1025)), FASTMQ_TOO_LARGE,
                 "one byte more is TOO_LARGE");
    CHECK_STATUS(fastmq_publisher_publish(publisher, bytes(block, 1025)), FASTMQ_TOO_LARGE,
                 "through a handle, too");
    CHECK_STATUS(fastmq_publish(client, subject, bytes(block, SIZE_MAX)), FASTMQ_TOO_LARGE,
                 "the largest size there is does not overflow anything");
    CHECK_STATUS(fastmq_publish(client, subject, bytes(NULL, 3)), FASTMQ_INVALID,
                 "a NULL payload with a size is INVALID");
    CHECK_STATUS(fastmq_publish(client, subject, bytes(NULL, 0)), FASTMQ_OK,
                 "an empty payload may be NULL");
    fastmq_outgoing message = outgoing("other", payload);
    CHECK_STATUS(fastmq_publisher_publish_message(publisher, &message), FASTMQ_INVALID,
                 "a message through a handle has no subject of its own");
    fastmq_publisher_close(publisher);
    fastmq_close(client);
    client = NULL;
    options.payload_max = UINT64_C(65) << 20;
    CHECK_STATUS(fastmq_open(&options, &client), FASTMQ_INVALID,
                 "a payload limit above 64 MiB is INVALID");
}

static void closed_handles(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *subscription = subscribe(client, "misuse");
    fastmq_publisher *publisher = open_publisher(client, "misuse");
    fastmq_requester *requester = open_requester(client, "misuse", 0);
    NEED(publish_number(client, "misuse", 1) == FASTMQ_OK);
    fastmq_queue *own = fastmq_subscription_queue(subscription);
    fastmq_batch *batch = NULL;
    NEED(fastmq_receive(own, 1, 0, &batch) == FASTMQ_OK);
    fastmq_batch_free(batch);
    CHECK_NUMBER(batch_calls(batch, is_misuse), 0, "a batch used after free is MISUSE");
    fastmq_batch_free(batch);
    fastmq_batch_free(batch);
    fastmq_queue_close(queue);
    CHECK_NUMBER(queue_calls(queue, is_misuse), 0, "a closed queue is MISUSE");
    fastmq_publish(client, text("some..subject"), payload);
    fastmq_queue_close(queue);
    CHECK(strstr(fastmq_last_error(), "some..subject") == NULL,
          "a double close is seen: it is the thread's last error");
    fastmq_unsubscribe(subscription);
    fastmq_unsubscribe(subscription);
    CHECK_NUMBER(subscription_calls(subscription, is_misuse), 0,
                 "a subscription after unsubscribe is MISUSE");
    CHECK_NUMBER(queue_calls(own, is_misuse), 0, "and so is the queue that it owned");
    fastmq_publisher_close(publisher);
    fastmq_publisher_close(publisher);
    CHECK_NUMBER(publisher_calls(publisher, is_misuse), 0, "a closed publisher is MISUSE");
    fastmq_requester_close(requester);
    fastmq_requester_close(requester);
    CHECK_NUMBER(requester_calls(requester, is_misuse), 0, "a closed requester is MISUSE");
    CHECK_STATUS(fastmq_publish(client, subject, payload), FASTMQ_OK,
                 "the client has not suffered from it");
    fastmq_close(client);
    CHECK_NUMBER(client_calls(client, is_misuse), 0, "a closed client is MISUSE");
    fastmq_close(client);

    fastmq_headers *headers = NULL;
    NEED(fastmq_headers_open(&headers) == FASTMQ_OK);
    fastmq_headers_close(headers);
    fastmq_headers_close(headers);
    CHECK_STATUS(fastmq_headers_add(headers, subject, payload), FASTMQ_MISUSE,
                 "closed headers are MISUSE");
}

static void closed_parents(void)
{
    fastmq_client *client = open_client();
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *subscription = subscribe_on(client, "misuse", queue, 0);
    fastmq_publisher *publisher = open_publisher(client, "misuse");
    fastmq_requester *requester = open_requester(client, "misuse", 0);
    fastmq_close(client);
    CHECK_NUMBER(queue_calls(queue, is_closed), 0, "a queue of a closed client is CLOSED");
    CHECK_NUMBER(publisher_calls(publisher, is_closed), 0, "so is its publisher");
    CHECK_NUMBER(requester_calls(requester, is_closed), 0, "so is its requester");
    fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
    CHECK_STATUS(fastmq_subscription_statistics_read(subscription, &figures), FASTMQ_CLOSED,
                 "so is its subscription");
    fastmq_queue_close(queue);
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(subscription);
    fastmq_requester_close(requester);
    CHECK_NUMBER(queue_calls(queue, is_misuse), 0, "each is still closed once, then it is MISUSE");
}

static void open_batches(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "misuse");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    NEED(publish_number(client, "misuse", 1) == FASTMQ_OK);
    NEED(publish_number(client, "misuse", 2) == FASTMQ_OK);
    fastmq_batch *first = NULL, *second = NULL;
    NEED(fastmq_receive(queue, 1, 0, &first) == FASTMQ_OK);
    CHECK_STATUS(fastmq_receive(queue, 1, 0, &second), FASTMQ_MISUSE,
                 "a second open batch of a queue is MISUSE");
    CHECK(second == NULL, "and gives nothing");
    size_t count = 0;
    const fastmq_message *messages = fastmq_batch_messages(first, &count);
    CHECK(count == 1 && number_of(&messages[0]) == 1, "the first batch is as it was");
    fastmq_batch_free(first);
    messages = NULL;
    second = take(queue, 1, &messages, &count);
    CHECK(number_of(&messages[0]) == 2, "after free the queue goes on where it was");
    fastmq_batch_free(second);
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    null_and_garbage_handles();
    handles_of_another_type();
    null_out_pointers();
    subjects();
    payloads();
    closed_handles();
    closed_parents();
    open_batches();
    return check_end();
}
