/* Handles closed in every order: client, queue, subscription, publisher, requester and the batch
 * between them, each closed twice, with messages and requests still under way.
 *
 * After each step every handle is used: what was closed is MISUSE, what belongs to a closed client
 * is CLOSED, everything else works. A batch is readable until it is freed. Each request ends once.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "calls.h"

enum { CLIENT, QUEUE, SUBSCRIPTION, PUBLISHER, REQUESTER, BATCH, KINDS };

struct handles {
    fastmq_client *client;
    fastmq_queue *queue;
    fastmq_subscription *subscription;
    fastmq_publisher *publisher;
    fastmq_requester *requester;
    fastmq_batch *batch;
    int is_open[KINDS];
    /* Requests that were accepted, and those whose fate was received. */
    uint64_t submitted, ended;
};

static struct handles open_all(void)
{
    struct handles all = {.is_open = {1, 1, 1, 1, 1, 1}, .submitted = 1};
    const fastmq_message *m = NULL;
    size_t count = 0;
    all.client = open_client();
    all.queue = open_queue(all.client, FASTMQ_POLICY_BACKPRESSURE, SMALL_CAPACITY);
    all.subscription = subscribe_on(all.client, "misuse", all.queue, 1);
    all.publisher = open_publisher(all.client, "misuse");
    all.requester = open_requester(all.client, "misuse", 32);
    for (uint32_t number = 1; number <= 3; number++) {
        NEED(fastmq_publisher_publish(all.publisher, bytes(&number, sizeof number)) == FASTMQ_OK);
    }
    NEED(fastmq_requester_submit(all.requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    all.batch = take(all.queue, 2, &m, &count);
    NEED(count == 2);
    return all;
}

/* Notes the fates of requests that are there. */
static void collect(struct handles *all)
{
    fastmq_batch *batch = NULL;
    while (fastmq_requester_receive(all->requester, 0, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        fastmq_batch_messages(batch, &count);
        all->ended += count;
        fastmq_batch_free(batch);
    }
}

/* Receives what waits and answers the requests among it; how many messages it was. */
static size_t receive(struct handles *all)
{
    size_t total = 0, count = 0;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(all->queue, 0, 0, &batch) == FASTMQ_OK) {
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            if (m[i].token != 0) {
                fastmq_status replied = fastmq_reply(all->client, m[i].token, text("!"));
                NEED(replied == FASTMQ_OK || replied == FASTMQ_NOT_FOUND);
            }
        }
        total += count;
        fastmq_batch_free(batch);
    }
    return total;
}

/* What works while the client is open; how much of it does not. */
static int use(struct handles *all)
{
    fastmq_batch *batch = NULL;
    uint64_t sent = 1;
    int wrong = publish_number(all->client, "misuse", 1) != FASTMQ_OK;
    if (all->is_open[PUBLISHER]) {
        wrong += fastmq_publisher_publish(all->publisher, text("more")) != FASTMQ_OK;
        sent++;
    }
    if (all->is_open[REQUESTER]) {
        wrong += fastmq_requester_submit(all->requester, text("?"), 2, FASTMQ_FOREVER)
            != FASTMQ_OK;
        all->submitted++;
        sent++;
    }
    if (all->is_open[QUEUE]) {
        if (all->is_open[BATCH]) {
            wrong += fastmq_receive(all->queue, 1, 0, &batch) != FASTMQ_MISUSE || batch != NULL;
        } else if (all->is_open[SUBSCRIPTION]) {
            wrong += receive(all) < sent;
        } else {
            wrong += receive(all) != 0;
        }
    }
    if (all->is_open[REQUESTER]) {
        collect(all);
        /* Nobody has what waited in the queue: it was received, or left with the queue. */
        wrong += !all->is_open[BATCH] && all->ended != all->submitted;
        wrong += fastmq_requester_in_flight(all->requester) != all->submitted - all->ended;
    }
    return wrong;
}

/* Uses each handle; how many did not answer as they should. */
static int use_all(struct handles *all)
{
    int (*wanted)(fastmq_status) = all->is_open[CLIENT] ? NULL : is_closed;
    size_t count = 0;
    int wrong = all->is_open[CLIENT] ? use(all) : client_calls(all->client, is_misuse);
    if (!all->is_open[QUEUE] || wanted != NULL) {
        wrong += queue_calls(all->queue, all->is_open[QUEUE] ? wanted : is_misuse);
    }
    if (!all->is_open[SUBSCRIPTION]) {
        wrong += subscription_calls(all->subscription, is_misuse);
    } else if (wanted != NULL) {
        /* Its number and its queue's handle are known all the same. */
        fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
        wrong += !wanted(fastmq_subscription_statistics_read(all->subscription, &figures));
    }
    if (!all->is_open[PUBLISHER] || wanted != NULL) {
        wrong += publisher_calls(all->publisher, all->is_open[PUBLISHER] ? wanted : is_misuse);
    }
    if (!all->is_open[REQUESTER] || wanted != NULL) {
        /* What waited in the queue is CANCELLED, which may be received before CLOSED. */
        collect(all);
        wrong += all->ended > all->submitted;
        wrong += requester_calls(all->requester, all->is_open[REQUESTER] ? wanted : is_misuse);
    }
    if (all->is_open[BATCH]) {
        const fastmq_message *m = fastmq_batch_messages(all->batch, &count);
        wrong += m == NULL || count != 2 || number_of(&m[0]) != 1 || number_of(&m[1]) != 2;
    } else {
        wrong += batch_calls(all->batch, is_misuse);
    }
    return wrong;
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

/* Closes a handle that is closed; true if the thread's last error does not say so. */
static int is_double_close_unseen(struct handles *all, int kind)
{
    fastmq_publish(NULL, subject, payload);
    close_one(all, kind);
    return strstr(fastmq_last_error(), "already") == NULL;
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
    uint32_t orders = 0, wrong = 0, unseen = 0;
    check_begin();
    do {
        struct handles all = open_all();
        for (int i = 0; i < KINDS; i++) {
            close_one(&all, order[i]);
            all.is_open[order[i]] = 0;
            int now = use_all(&all);
            if (now != 0 && wrong < 10) {
                printf("# closing %d as number %d of %d%d%d%d%d%d: %d wrong\n", order[i], i,
                       order[0], order[1], order[2], order[3], order[4], order[5], now);
            }
            wrong += now;
            unseen += is_double_close_unseen(&all, order[i]);
        }
        orders++;
    } while (next_order(order, KINDS));
    CHECK_NUMBER(orders, 720, "handles are closed in each of the 720 orders, none is left");
    CHECK_NUMBER(wrong, 0, "meanwhile the closed are MISUSE, the client's are CLOSED, the rest "
                           "works and each request ends once");
    CHECK_NUMBER(unseen, 0, "a second close is seen, and is all that it does");
    return check_end();
}
