/* A client in another process: the calls are those of a broker in this one, but for
 * fastmq_connect. Buys three times from market_server, and hears the price rise.
 *
 *   market_client [URL]
 */
#include <fastmq.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "market_client: %s: %s\n", doing, fastmq_last_error());
        exit(1);
    }
}

/* Told what happens to the connection. Nothing has to be done: the client connects again by
 * itself. */
static void on_event(const fastmq_event *event, void *context)
{
    (void)context;
    if (event->kind == FASTMQ_EVENT_DISCONNECTED && event->status != FASTMQ_CLOSED) {
        fprintf(stderr, "market_client: %.*s\n", (int)event->detail.size,
                (const char *)event->detail.data);
    }
}

int main(int count, char **arguments)
{
    const char *url = count > 1 ? arguments[1] : "unix:/tmp/market.sock";
    fastmq_connect_options options = {.struct_size = sizeof options};
    fastmq_client *mq = NULL;
    fastmq_subscription *prices = NULL;
    options.name = text("a buyer");
    options.on_event = on_event;
    must(fastmq_connect(url, &options, &mq), "connect");
    must(fastmq_subscribe(mq, text("price.*"), NULL, &prices), "subscribe");

    for (int i = 0; i < 3; i++) {
        char paid[16];
        size_t size = 0;
        fastmq_batch *batch = NULL;
        must(fastmq_request_into(mq, text("order.buy"), text("1"), 5 * SECOND, paid, sizeof paid,
                                 &size), "buy");
        must(fastmq_receive(fastmq_subscription_queue(prices), 1, 5 * SECOND, &batch), "receive");
        const fastmq_message *now = fastmq_batch_messages(batch, &(size_t){0});
        printf("bought at %.*s, the price is %.*s\n", (int)size, paid, (int)now->payload.size,
               (const char *)now->payload.data);
        fastmq_batch_free(batch);
    }

    fastmq_unsubscribe(prices);
    fastmq_close(mq);
    return 0;
}
