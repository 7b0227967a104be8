/* The memory cap: beyond it calls answer NO_SPACE, nothing that was accepted is lost, and after
 * draining everything goes on.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

enum { MEMORY_MAX = 4 << 20 };

static fastmq_client *open_capped(uint64_t memory_max)
{
    fastmq_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    options.memory_max = memory_max;
    options.queue_capacity = 64 << 20; /* so that the cap is met before the queue is full */
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    return client;
}

static void filled_by(size_t payload_size, const char *name)
{
    char line[120];
    fastmq_client *client = open_capped(MEMORY_MAX);
    fastmq_subscription *a = subscribe(client, "cap"), *b = subscribe(client, "cap");
    fastmq_queue *in_a = fastmq_subscription_queue(a), *in_b = fastmq_subscription_queue(b);
    uint8_t *payload = calloc(1, payload_size);
    NEED(payload != NULL);
    for (uint32_t round = 0; round < 3; round++) {
        fastmq_status status = FASTMQ_OK;
        size_t accepted = 0;
        uint64_t high = 0;
        while (status == FASTMQ_OK && accepted * payload_size <= 4 * (size_t)MEMORY_MAX) {
            status = fastmq_publish(client, text("cap"), bytes(payload, payload_size));
            accepted += status == FASTMQ_OK;
        }
        high = client_figures(client).memory;
        snprintf(line, sizeof line, "%s: at the cap a publish is NO_SPACE", name);
        CHECK_STATUS(status, FASTMQ_NO_SPACE, line);
        snprintf(line, sizeof line, "%s: memory is within the cap", name);
        CHECK(accepted >= 1 && high <= MEMORY_MAX, line);
        size_t from_a = take_all(in_a), from_b = take_all(in_b);
        snprintf(line, sizeof line, "%s: both queues hold exactly what was accepted", name);
        CHECK(from_a == accepted && from_b == accepted, line);
    }
    snprintf(line, sizeof line, "%s: the highest memory ever was within the cap", name);
    CHECK(client_figures(client).memory_high <= MEMORY_MAX, line);
    free(payload);
    fastmq_unsubscribe(a);
    fastmq_unsubscribe(b);
    snprintf(line, sizeof line, "%s: closed queues give their memory back", name);
    uint64_t left = client_figures(client).memory;
    fastmq_subscription *again = subscribe(client, "cap");
    NEED(publish_number(client, "cap", 1) == FASTMQ_OK);
    fastmq_unsubscribe(again);
    CHECK_NUMBER(client_figures(client).memory, left, line);
    fastmq_close(client);
}

static void many_queues(void)
{
    enum { QUEUES_MAX = 4096 };
    static fastmq_subscription *all[QUEUES_MAX];
    fastmq_client *client = open_capped(MEMORY_MAX);
    fastmq_status status = FASTMQ_OK;
    size_t count = 0;
    char subject[32];
    while (count < QUEUES_MAX && status == FASTMQ_OK) {
        snprintf(subject, sizeof subject, "cap.%zu", count);
        status = fastmq_subscribe(client, text(subject), NULL, &all[count]);
        count += status == FASTMQ_OK;
        for (int i = 0; i < 8 && status == FASTMQ_OK; i++) {
            status = publish_wide(client, subject, 1);
        }
    }
    CHECK(status == FASTMQ_NO_SPACE || count == QUEUES_MAX,
          "many queues with a few messages each meet the cap as NO_SPACE");
    CHECK(client_figures(client).memory <= MEMORY_MAX, "and stay within it");
    for (size_t i = 0; i < count; i++) {
        fastmq_unsubscribe(all[i]);
    }
    fastmq_subscription *one = subscribe(client, "cap");
    CHECK_STATUS(publish_number(client, "cap", 1), FASTMQ_OK, "when they are closed there is room");
    fastmq_unsubscribe(one);
    fastmq_close(client);
}

static void requests_at_the_cap(void)
{
    fastmq_client *client = open_capped(MEMORY_MAX);
    fastmq_subscription *responder = subscribe(client, "ask");
    fastmq_requester *requester = open_requester(client, "ask", 65535);
    static const uint8_t payload[4096];
    uint32_t sent = 0, fates = 0;
    fastmq_status status = FASTMQ_OK;
    while (sent < 4000 && status == FASTMQ_OK) {
        status = fastmq_requester_submit(requester, bytes(payload, sizeof payload), sent, PATIENCE);
        sent += status == FASTMQ_OK;
    }
    CHECK(status == FASTMQ_OK || status == FASTMQ_NO_SPACE,
          "at the cap a request is NO_SPACE, or accepted and answered BUSY");
    fastmq_unsubscribe(responder);
    while (fates < sent) {
        fastmq_batch *batch = NULL;
        size_t count = 0;
        NEED(fastmq_requester_receive(requester, 256, PATIENCE, &batch) == FASTMQ_OK);
        fastmq_batch_messages(batch, &count);
        fates += (uint32_t)count;
        fastmq_batch_free(batch);
    }
    CHECK_NUMBER(fates, sent, "every accepted request still has its one fate");
    fastmq_requester_close(requester);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    filled_by(64, "small payloads");
    filled_by(64 << 10, "large payloads");
    many_queues();
    requests_at_the_cap();
    return check_end();
}
