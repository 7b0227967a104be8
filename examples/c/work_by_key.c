/* Work by key: the orders of a customer are handled in order, while workers come and go.
 *
 * Three workers share the orders of 100 customers. The messages of one key, here the customer, go
 * to one worker at a time. A fourth joins in the middle, and one leaves with orders unread: its
 * customers go to the others, whose next order of each is the one that comes next.
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

enum { WORKERS = 4, CUSTOMERS = 100, ORDERS = 40 };

struct order {
    uint32_t customer;
    uint32_t number; /* from 0, of this customer */
};

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "work_by_key: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

struct worker {
    fastmq_subscription *subscription;
    pthread_t thread;
    uint32_t orders;
    uint32_t order_max; /* leaves after that many */
    uint32_t mistakes;
    /* Shared, without a lock: a customer is handled by one worker at a time. */
    uint32_t *next;
};

static void *work(void *context)
{
    struct worker *worker = context;
    fastmq_queue *queue = fastmq_subscription_queue(worker->subscription);
    fastmq_batch *batch = NULL;
    while (worker->orders < worker->order_max
           && fastmq_receive(queue, 32, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            struct order order;
            memcpy(&order, messages[i].payload.data, sizeof order);
            worker->mistakes += order.number != worker->next[order.customer];
            worker->next[order.customer] = order.number + 1;
            worker->orders++;
        }
        /* Now they are handled: the keys that are to move may move. */
        fastmq_batch_free(batch);
    }
    /* Ends its queue, too; what is in it goes to the others. */
    fastmq_unsubscribe(worker->subscription);
    return NULL;
}

static void start(fastmq_client *mq, struct worker *worker)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.group = text("warehouse");
    options.group_mode = FASTMQ_GROUP_KEY_SHARED;
    must(fastmq_subscribe(mq, text("order.*"), &options, &worker->subscription), "subscribe");
    if (pthread_create(&worker->thread, NULL, work, worker) != 0) {
        fprintf(stderr, "work_by_key: cannot start a thread\n");
        exit(1);
    }
}

int main(void)
{
    static uint32_t next[CUSTOMERS];
    struct worker workers[WORKERS];
    fastmq_client *mq = NULL;
    must(fastmq_open(NULL, &mq), "open");
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.order_max = UINT32_MAX, .next = next};
    }
    workers[0].order_max = CUSTOMERS * ORDERS / 10;
    for (int i = 0; i < WORKERS - 1; i++) {
        start(mq, &workers[i]);
    }

    for (uint32_t number = 0; number < ORDERS; number++) {
        if (number == ORDERS / 2) {
            start(mq, &workers[WORKERS - 1]);
        }
        for (uint32_t customer = 0; customer < CUSTOMERS; customer++) {
            struct order order = {customer, number};
            fastmq_outgoing message = {.struct_size = sizeof message};
            message.subject = text("order.new");
            message.key = (fastmq_bytes){(const uint8_t *)&customer, sizeof customer};
            message.payload = (fastmq_bytes){(const uint8_t *)&order, sizeof order};
            must(fastmq_publish_wait(mq, &message, 10 * SECOND), "publish an order");
        }
    }

    must(fastmq_drain(mq, 10 * SECOND), "drain");
    uint32_t handled = 0, mistakes = 0;
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        handled += workers[i].orders;
        mistakes += workers[i].mistakes;
    }
    printf("%u orders of %d customers were handled, %u of them out of order\n",
           (unsigned)handled, CUSTOMERS, (unsigned)mistakes);
    fastmq_close(mq);
    return handled == CUSTOMERS * ORDERS && mistakes == 0 ? 0 : 1;
}
