/* Handles closed in every order: client, queue, subscription, publisher, requester and the batches
 * between them, each closed once, with messages and requests still under way.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

enum { CLIENT, QUEUE, SUBSCRIPTION, PUBLISHER, REQUESTER, BATCH, KINDS };

struct handles {
    fastmq_client *client;
    fastmq_queue *queue;
    fastmq_subscription *subscription;
    fastmq_publisher *publisher;
    fastmq_requester *requester;
    fastmq_batch *batch;
};

static struct handles open_all(void)
{
    struct handles all;
    const fastmq_message *m = NULL;
    size_t count = 0;
    all.client = open_client();
    all.queue = open_queue(all.client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    all.subscription = subscribe_on(all.client, "order", all.queue, 1);
    all.publisher = open_publisher(all.client, "order");
    all.requester = open_requester(all.client, "order", 4);
    uint32_t number = 1;
    for (int i = 0; i < 3; i++) {
        NEED(fastmq_publisher_publish(all.publisher, bytes(&number, sizeof number)) == FASTMQ_OK);
    }
    NEED(fastmq_requester_submit(all.requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    all.batch = take(all.queue, 2, &m, &count);
    return all;
}

/* Each handle that is still open is used once more, so that a stale pointer would be followed:
 * whatever the status, nothing is read or written that is gone. */
static void use_all(const struct handles *all, const uint8_t *is_open)
{
    fastmq_batch *batch = NULL;
    size_t count = 0;
    if (is_open[BATCH]) {
        const fastmq_message *m = fastmq_batch_messages(all->batch, &count);
        NEED(m == NULL || number_of(m) == 1);
    }
    if (is_open[PUBLISHER]) {
        fastmq_publisher_publish(all->publisher, text("more"));
    }
    if (is_open[REQUESTER]) {
        fastmq_requester_submit(all->requester, text("?"), 2, SECOND);
        if (fastmq_requester_receive(all->requester, 8, 0, &batch) == FASTMQ_OK) {
            fastmq_batch_free(batch);
        }
    }
    if (is_open[QUEUE] && !is_open[BATCH]
        && fastmq_receive(all->queue, 1, 0, &batch) == FASTMQ_OK) {
        fastmq_batch_free(batch);
    }
    if (is_open[CLIENT]) {
        publish_number(all->client, "order", 1);
    }
}

static void close_one(struct handles *all, int kind)
{
    switch (kind) {
    case CLIENT: fastmq_close(all->client); break;
    case QUEUE: fastmq_queue_close(all->queue); break;
    case SUBSCRIPTION: fastmq_unsubscribe(all->subscription); break;
    case PUBLISHER: fastmq_publisher_close(all->publisher); break;
    case REQUESTER: fastmq_requester_close(all->requester); break;
    default: fastmq_batch_free(all->batch); break;
    }
}

/* The next permutation in lexical order; 0 after the last. */
static int next_order(int *order, int count)
{
    int i = count - 2, j = count - 1;
    while (i >= 0 && order[i] >= order[i + 1]) {
        i--;
    }
    if (i < 0) {
        return 0;
    }
    while (order[j] <= order[i]) {
        j--;
    }
    int swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
    for (int a = i + 1, b = count - 1; a < b; a++, b--) {
        swapped = order[a];
        order[a] = order[b];
        order[b] = swapped;
    }
    return 1;
}

int main(void)
{
    int order[KINDS] = {CLIENT, QUEUE, SUBSCRIPTION, PUBLISHER, REQUESTER, BATCH};
    uint32_t orders = 0;
    check_begin();
    do {
        struct handles all = open_all();
        uint8_t is_open[KINDS] = {1, 1, 1, 1, 1, 1};
        for (int i = 0; i < KINDS; i++) {
            close_one(&all, order[i]);
            is_open[order[i]] = 0;
            use_all(&all, is_open);
        }
        orders++;
    } while (next_order(order, KINDS));
    CHECK_NUMBER(orders, 720, "handles are closed in each of the 720 orders, none is left");
    return check_end();
}
