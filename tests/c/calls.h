/* Every function that takes a handle, each type's in one call: what must all answer the same.
 *
 * Each returns how many of its functions did not answer as wanted, or gave something although they
 * failed.
 */
#ifndef FASTMQ_TESTS_CALLS_H
#define FASTMQ_TESTS_CALLS_H

#include "steps.h"

static const fastmq_bytes subject = {(const uint8_t *)"misuse", 6};
static const fastmq_bytes payload = {(const uint8_t *)"payload", 7};

static inline int client_calls(fastmq_client *client, int (*wanted)(fastmq_status))
{
    fastmq_outgoing message = outgoing("misuse", payload);
    fastmq_client_statistics figures = {.struct_size = sizeof figures};
    fastmq_publisher *publisher = NULL;
    fastmq_queue *queue = NULL;
    fastmq_subscription *subscription = NULL;
    fastmq_requester *requester = NULL;
    fastmq_batch *batch = NULL;
    fastmq_reply_stream *stream = NULL;
    fastmq_server *server = NULL;
    char reply[8];
    size_t size = 0;
    uint32_t ready = 0;
    int wrong = 0;
    wrong += !wanted(fastmq_publish(client, subject, payload));
    wrong += !wanted(fastmq_publish_message(client, &message));
    wrong += !wanted(fastmq_publish_batch(client, &message, 1, &size));
    wrong += !wanted(fastmq_publish_wait(client, &message, 0));
    wrong += !wanted(fastmq_forget_last(client, subject));
    wrong += !wanted(fastmq_publisher_open(client, subject, &publisher)) || publisher != NULL;
    wrong += !wanted(fastmq_queue_open(client, NULL, &queue)) || queue != NULL;
    wrong += !wanted(fastmq_subscribe(client, subject, NULL, &subscription))
        || subscription != NULL;
    wrong += !wanted(fastmq_requester_open(client, NULL, &requester)) || requester != NULL;
    wrong += !wanted(fastmq_request(client, &message, 0, &batch)) || batch != NULL;
    wrong += !wanted(fastmq_request_into(client, subject, payload, 0, reply, sizeof reply, &size));
    wrong += !wanted(fastmq_reply(client, 1, payload));
    wrong += !wanted(fastmq_reply_message(client, 1, &message, FASTMQ_OK));
    wrong += !wanted(fastmq_request_many(client, &message, 1, 0, &batch)) || batch != NULL;
    wrong += !wanted(fastmq_reply_stream_open(client, 1, &stream)) || stream != NULL;
    wrong += !wanted(fastmq_listen(client, "tcp://127.0.0.1:0", NULL, &server)) || server != NULL;
    wrong += !wanted(fastmq_dispatch(client, 1, 0, &ready));
    wrong += !wanted(fastmq_drain(client, 0));
    wrong += !wanted(fastmq_client_statistics_read(client, &figures));
    wrong += fastmq_fd(client) != -1;
    wrong += fastmq_next_deadline(client) != FASTMQ_FOREVER;
    return wrong;
}

static inline int queue_calls(fastmq_queue *queue, int (*wanted)(fastmq_status))
{
    fastmq_queue_statistics figures = {.struct_size = sizeof figures};
    fastmq_batch *batch = NULL;
    int wrong = 0;
    wrong += !wanted(fastmq_receive(queue, 1, 0, &batch)) || batch != NULL;
    wrong += !wanted(fastmq_queue_statistics_read(queue, &figures));
    wrong += fastmq_queue_fd(queue) != -1;
    size_t index = 1;
    wrong += !wanted(fastmq_wait_any(&queue, 1, 0, &index)) || index != 0;
    return wrong;
}

static inline int subscription_calls(fastmq_subscription *subscription,
                                     int (*wanted)(fastmq_status))
{
    fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
    int wrong = 0;
    wrong += !wanted(fastmq_subscription_statistics_read(subscription, &figures));
    wrong += fastmq_subscription_queue(subscription) != NULL;
    wrong += fastmq_subscription_id(subscription) != 0;
    return wrong;
}

static inline int publisher_calls(fastmq_publisher *publisher, int (*wanted)(fastmq_status))
{
    fastmq_outgoing message = outgoing("", payload);
    uint8_t *room = NULL;
    size_t accepted = 0;
    int wrong = 0;
    wrong += !wanted(fastmq_publisher_publish(publisher, payload));
    wrong += !wanted(fastmq_publisher_publish_message(publisher, &message));
    wrong += !wanted(fastmq_publisher_publish_batch(publisher, &payload, 1, &accepted));
    wrong += !wanted(fastmq_publisher_publish_wait(publisher, payload, 0));
    wrong += !wanted(fastmq_publisher_claim(publisher, 8, &room)) || room != NULL;
    wrong += !wanted(fastmq_publisher_commit(publisher, 8));
    fastmq_publisher_abandon(publisher);
    return wrong;
}

static inline int requester_calls(fastmq_requester *requester, int (*wanted)(fastmq_status))
{
    fastmq_outgoing message = outgoing("misuse", payload);
    fastmq_batch *batch = NULL;
    char reply[8];
    size_t size = 0;
    int wrong = 0;
    wrong += !wanted(fastmq_requester_submit(requester, payload, 1, 0));
    wrong += !wanted(fastmq_requester_submit_to(requester, subject, payload, 1, 0));
    wrong += !wanted(fastmq_requester_submit_message(requester, &message, 0));
    wrong += !wanted(fastmq_requester_submit_many(requester, &message, 0, NULL));
    wrong += !wanted(fastmq_requester_grant(requester, 1, 1));
    wrong += !wanted(fastmq_requester_receive(requester, 1, 0, &batch)) || batch != NULL;
    wrong += !wanted(fastmq_requester_request_into(requester, payload, 0, reply, 8, &size));
    wrong += !wanted(fastmq_requester_cancel(requester, 1));
    wrong += fastmq_requester_in_flight(requester) != 0;
    wrong += fastmq_requester_fd(requester) != -1;
    return wrong;
}

static inline int stream_calls(fastmq_reply_stream *stream, int (*wanted)(fastmq_status))
{
    fastmq_outgoing message = outgoing("", payload);
    uint64_t replies = 0;
    int wrong = 0;
    wrong += !wanted(fastmq_reply_stream_credit(stream, &replies)) || replies != 0;
    wrong += !wanted(fastmq_reply_stream_send(stream, payload));
    wrong += !wanted(fastmq_reply_stream_send_message(stream, &message));
    wrong += !wanted(fastmq_reply_stream_send_wait(stream, payload, 0));
    wrong += !wanted(fastmq_reply_stream_end(stream, FASTMQ_OK));
    return wrong;
}

static inline int batch_calls(fastmq_batch *batch, int (*wanted)(fastmq_status))
{
    fastmq_batch *copy = NULL;
    size_t count = 77;
    int wrong = 0;
    wrong += fastmq_batch_messages(batch, &count) != NULL || count != 0;
    wrong += fastmq_batch_time(batch) != 0;
    wrong += !wanted(fastmq_batch_detach(batch, &copy)) || copy != NULL;
    return wrong;
}

static inline int is_invalid(fastmq_status status) { return status == FASTMQ_INVALID; }
static inline int is_misuse(fastmq_status status) { return status == FASTMQ_MISUSE; }
static inline int is_closed(fastmq_status status) { return status == FASTMQ_CLOSED; }

#endif
