/* A client of another process inside a loop of your own: its one descriptor stands in epoll beside
 * yours (here a timer), and nothing of it blocks or has a thread. Buys three times from
 * market_server, at each tick of the timer, and hears the price rise.
 *
 *   market_loop_client [URL]
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)
enum { WANTED = 3 };

struct buyer {
    int is_connected;
    unsigned asked, bought, prices;
};

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(int is_fine, const char *doing)
{
    if (!is_fine) {
        fprintf(stderr, "market_loop_client: cannot %s: %s\n", doing, fastmq_last_error());
        exit(1);
    }
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "watch an fd");
}

/* Both are called inside fastmq_dispatch, so on this thread: the buyer needs no lock. */
static void on_event(const fastmq_event *event, void *context)
{
    struct buyer *buyer = context;
    buyer->is_connected = event->kind == FASTMQ_EVENT_CONNECTED;
    if (event->kind == FASTMQ_EVENT_DISCONNECTED && event->status != FASTMQ_CLOSED) {
        fprintf(stderr, "market_loop_client: %.*s\n", (int)event->detail.size,
                (const char *)event->detail.data);
    }
}

static void on_price(const fastmq_message *message, void *context)
{
    struct buyer *buyer = context;
    buyer->prices++;
    printf("the price is %.*s\n", (int)message->payload.size,
           (const char *)message->payload.data);
}

static void buy(fastmq_requester *orders, struct buyer *buyer)
{
    /* Without a connection a request is UNAVAILABLE: the next tick tries again. */
    if (buyer->is_connected && buyer->asked < WANTED
        && fastmq_requester_submit(orders, text("1"), buyer->asked, 5 * SECOND) == FASTMQ_OK) {
        buyer->asked++;
    }
}

static void take_answers(fastmq_requester *orders, struct buyer *buyer)
{
    fastmq_batch *batch = NULL;
    while (fastmq_requester_receive(orders, 64, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *answer = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            /* TIMEOUT, or DISCONNECTED: who knows whether it was filled. */
            must(answer[i].status == FASTMQ_OK, "buy");
            printf("bought at %.*s\n", (int)answer[i].payload.size,
                   (const char *)answer[i].payload.data);
        }
        buyer->bought += (unsigned)count;
        fastmq_batch_free(batch);
    }
}

int main(int count, char **arguments)
{
    const char *url = count > 1 ? arguments[1] : "unix:/tmp/market.sock";
    struct buyer buyer = {0, 0, 0, 0};
    fastmq_client *mq = NULL;
    fastmq_connect_options options = {.struct_size = sizeof options};
    options.flags = FASTMQ_CONNECT_POLLED | FASTMQ_CONNECT_LATER | FASTMQ_CONNECT_UNCONFIRMED;
    options.on_event = on_event;
    options.context = &buyer;
    must(fastmq_connect(url, &options, &mq) == FASTMQ_OK, "connect");

    fastmq_subscription *prices = NULL;
    fastmq_subscribe_options how = {.struct_size = sizeof how};
    how.delivery = FASTMQ_DELIVERY_DISPATCH;
    how.on_message = on_price;
    how.context = &buyer;
    must(fastmq_subscribe(mq, text("price.*"), &how, &prices) == FASTMQ_OK, "subscribe");
    fastmq_requester *orders = NULL;
    fastmq_requester_options to = {.struct_size = sizeof to, .subject = text("order.buy")};
    must(fastmq_requester_open(mq, &to, &orders) == FASTMQ_OK, "open a requester");

    int messages = fastmq_fd(mq);
    int ticks = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(messages >= 0 && ticks >= 0 && epoll >= 0, "make the fds");
    struct itimerspec every = {{0, 10000000}, {0, 10000000}}; /* 10 ms */
    must(timerfd_settime(ticks, 0, &every, NULL) == 0, "start the timer");
    watch(epoll, messages);
    watch(epoll, ticks);

    while (buyer.bought < WANTED || buyer.prices < WANTED) {
        struct epoll_event events[8];
        int ready = epoll_wait(epoll, events, 8, -1);
        for (int i = 0; i < ready; i++) {
            uint64_t expirations = 0;
            uint32_t found = 0;
            if (events[i].data.fd == messages) {
                /* Sends, receives, connects again, calls on_event and on_price. */
                must(fastmq_dispatch(mq, 0, 0, &found) == FASTMQ_OK, "dispatch");
                if ((found & FASTMQ_READY_ANSWERS) != 0) {
                    take_answers(orders, &buyer);
                }
            } else if (read(ticks, &expirations, sizeof expirations) == sizeof expirations) {
                buy(orders, &buyer);
            }
        }
    }

    close(epoll);
    close(ticks);
    fastmq_requester_close(orders);
    fastmq_unsubscribe(prices);
    fastmq_close(mq); /* says goodbye to the server; the fd is closed */
    return 0;
}
