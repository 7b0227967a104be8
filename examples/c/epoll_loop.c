/* A loop of your own: a queue's fd in epoll, beside another fd (here a timer).
 *
 * The fd is readable exactly while there is something to do. It is for polling only: what is there
 * is taken with fastmq_receive, never with read(2).
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { READINGS = 1000, TICKS = 5 };

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(int is_fine, const char *doing)
{
    if (!is_fine) {
        fprintf(stderr, "epoll_loop: cannot %s: %s\n", doing, fastmq_last_error());
        exit(1);
    }
}

/* The rest of the program: another thread that publishes now and then. */
static void *measure(void *context)
{
    for (uint32_t i = 0; i < READINGS; i++) {
        fastmq_bytes reading = {(const uint8_t *)&i, sizeof i};
        if (fastmq_publish(context, text("sensor.reading"), reading) != FASTMQ_OK) {
            break;
        }
    }
    return NULL;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "watch an fd");
}

/* Takes all that waits in the queue; epoll calls again when there is more. */
static uint32_t take(fastmq_queue *queue)
{
    uint32_t taken = 0;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 64, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        fastmq_batch_messages(batch, &count);
        taken += (uint32_t)count;
        fastmq_batch_free(batch);
    }
    return taken;
}

int main(void)
{
    fastmq_client *mq = NULL;
    fastmq_subscription *readings = NULL;
    must(fastmq_open(NULL, &mq) == FASTMQ_OK, "open");
    must(fastmq_subscribe(mq, text("sensor.*"), NULL, &readings) == FASTMQ_OK, "subscribe");
    fastmq_queue *queue = fastmq_subscription_queue(readings);

    int messages = fastmq_queue_fd(queue);
    int ticks = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(messages >= 0 && ticks >= 0 && epoll >= 0, "make the fds");
    struct itimerspec every = {{0, 2000000}, {0, 2000000}}; /* 2 ms */
    must(timerfd_settime(ticks, 0, &every, NULL) == 0, "start the timer");
    watch(epoll, messages);
    watch(epoll, ticks);

    pthread_t thread;
    must(pthread_create(&thread, NULL, measure, mq) == 0, "start a thread");
    uint32_t received = 0;
    uint64_t ticked = 0;
    while (received < READINGS || ticked < TICKS) {
        struct epoll_event events[8];
        int ready = epoll_wait(epoll, events, 8, 10000);
        must(ready > 0, "go on: nothing has happened for 10 seconds");
        for (int i = 0; i < ready; i++) {
            uint64_t expirations = 0;
            if (events[i].data.fd == messages) {
                received += take(queue);
            } else if (read(ticks, &expirations, sizeof expirations) == sizeof expirations) {
                ticked += expirations;
            }
        }
    }
    printf("one loop saw %u messages and at least %d ticks of a timer\n", (unsigned)received,
           TICKS);

    pthread_join(thread, NULL);
    close(epoll);
    close(ticks);
    fastmq_unsubscribe(readings); /* closes the queue and its fd */
    fastmq_close(mq);
    return received == READINGS ? 0 : 1;
}
