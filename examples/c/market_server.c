/* A broker that other processes use: fills the orders of its clients, tells all of them the new
 * price, and answers questions. Beside fastmq_listen it is what a program without clients is.
 *
 *   market_server [--check] [URL] ... then, elsewhere: market_client [URL]
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
        fprintf(stderr, "market_server: %s: %s\n", doing, fastmq_last_error());
        exit(1);
    }
}

int main(int count, char **arguments)
{
    /* A check ends when one client has bought three times. */
    int is_check = count > 1 && strcmp(arguments[1], "--check") == 0;
    const char *url = count > 1 + is_check ? arguments[1 + is_check] : "unix:/tmp/market.sock";
    fastmq_client *mq = NULL;
    fastmq_server *server = NULL;
    fastmq_subscription *orders = NULL;
    must(fastmq_open(NULL, &mq), "open");
    must(fastmq_subscribe(mq, text("order.buy"), NULL, &orders), "subscribe");
    /* Listen last: whoever connects finds everything in its place. */
    must(fastmq_listen(mq, url, NULL, &server), "listen");
    printf("listening at %s\n", fastmq_server_url(server, 0));
    fflush(stdout);

    for (unsigned price = 100; !is_check || price < 103;) {
        fastmq_batch *batch = NULL;
        size_t orders_count = 0;
        must(fastmq_receive(fastmq_subscription_queue(orders), 64, FASTMQ_FOREVER, &batch),
             "receive");
        const fastmq_message *order = fastmq_batch_messages(batch, &orders_count);
        for (size_t i = 0; i < orders_count; i++) {
            char line[16];
            snprintf(line, sizeof line, "%u", price++);
            /* The buyer gets the price that he pays, everybody the price that there is now. The
             * buyer may have gone meanwhile: that is no reason to stop. */
            fastmq_reply(mq, order[i].token, text(line));
            snprintf(line, sizeof line, "%u", price);
            must(fastmq_publish(mq, text("price.now"), text(line)), "publish");
        }
        fastmq_batch_free(batch);
    }

    /* Gives clients a second for what is under way; then they are told that the server closes. */
    fastmq_server_close(server, SECOND);
    fastmq_unsubscribe(orders);
    fastmq_close(mq);
    return 0;
}
