/* An event loop of your own: epoll waits for a timer and, by one descriptor, for all that concerns
 * a client: messages, questions and answers. One thread, and nothing blocks it.
 *
 * The descriptor is readable exactly while there is something to do. It is for waiting only: what
 * is there is done by fastmq_dispatch, never by read(2).
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)

enum { READINGS = 5, TICK_NS = 2000000 };

struct loop {
    fastmq_client *mq;
    fastmq_requester *asker;
    int ticks, published, is_over;
    char newest[8];
};

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(int is_fine, const char *doing)
{
    if (!is_fine) {
        fprintf(stderr, "event_loop: cannot %s: %s\n", doing, fastmq_last_error());
        exit(1);
    }
}

/* The timer: each tick is a reading, until there are enough. */
static void on_tick(struct loop *loop)
{
    uint64_t expirations = 0;
    if (read(loop->ticks, &expirations, sizeof expirations) != sizeof expirations) {
        return;
    }
    char subject[16], degrees[16];
    snprintf(subject, sizeof subject, "sensor.%d", loop->published % 2);
    snprintf(degrees, sizeof degrees, "%d", 20 + loop->published);
    must(fastmq_publish(loop->mq, text(subject), text(degrees)) == FASTMQ_OK, "publish");
    if (++loop->published == READINGS) {
        struct itimerspec never = {{0, 0}, {0, 0}};
        must(timerfd_settime(loop->ticks, 0, &never, NULL) == 0, "stop the timer");
    }
}

/* Called by fastmq_dispatch with each reading; the last one has the loop ask. */
static void on_reading(const fastmq_message *reading, void *context)
{
    struct loop *loop = context;
    snprintf(loop->newest, sizeof loop->newest, "%.*s", (int)reading->payload.size,
             (const char *)reading->payload.data);
    printf("%.*s: %s degrees\n", (int)reading->subject.size, (const char *)reading->subject.data,
           loop->newest);
    if (strcmp(loop->newest, "24") == 0) {
        /* Does not wait: the answer comes through the loop as everything else. */
        must(fastmq_requester_submit(loop->asker, text(""), 0, 5 * SECOND) == FASTMQ_OK, "ask");
    }
}

/* Called by fastmq_dispatch with each question. */
static void on_question(const fastmq_message *question, void *context)
{
    struct loop *loop = context;
    fastmq_reply(loop->mq, question->token, text(loop->newest));
}

static void on_answer(struct loop *loop)
{
    fastmq_batch *batch = NULL;
    while (fastmq_requester_receive(loop->asker, 0, 0, &batch) == FASTMQ_OK) {
        const fastmq_message *answer = fastmq_batch_messages(batch, &(size_t){0});
        must(answer->status == FASTMQ_OK, "get an answer");
        printf("it is %.*s degrees now\n", (int)answer->payload.size,
               (const char *)answer->payload.data);
        fastmq_batch_free(batch);
        loop->is_over = 1;
    }
}

static fastmq_subscription *listen_to(struct loop *loop, const char *pattern,
                                      fastmq_on_message on_message)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.delivery = FASTMQ_DELIVERY_DISPATCH;
    options.on_message = on_message;
    options.context = loop;
    fastmq_subscription *subscription = NULL;
    must(fastmq_subscribe(loop->mq, text(pattern), &options, &subscription) == FASTMQ_OK,
         "subscribe");
    return subscription;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "watch a descriptor");
}

int main(void)
{
    struct loop loop = {0};
    must(fastmq_open(NULL, &loop.mq) == FASTMQ_OK, "open");
    fastmq_subscription *readings = listen_to(&loop, "sensor.*", on_reading);
    fastmq_subscription *questions = listen_to(&loop, "temperature", on_question);
    fastmq_requester_options options = {.struct_size = sizeof options};
    options.subject = text("temperature");
    must(fastmq_requester_open(loop.mq, &options, &loop.asker) == FASTMQ_OK, "open a requester");

    int messages = fastmq_fd(loop.mq);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    loop.ticks = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    must(messages >= 0 && loop.ticks >= 0 && epoll >= 0, "make the descriptors");
    struct itimerspec every = {{0, TICK_NS}, {0, TICK_NS}};
    must(timerfd_settime(loop.ticks, 0, &every, NULL) == 0, "start the timer");
    watch(epoll, messages);
    watch(epoll, loop.ticks);

    while (!loop.is_over) {
        struct epoll_event event;
        must(epoll_wait(epoll, &event, 1, 10000) == 1, "go on: nothing happens for 10 seconds");
        if (event.data.fd == loop.ticks) {
            on_tick(&loop);
            continue;
        }
        uint32_t ready = 0;
        must(fastmq_dispatch(loop.mq, 0, 0, &ready) == FASTMQ_OK, "dispatch");
        if ((ready & FASTMQ_READY_ANSWERS) != 0) {
            on_answer(&loop);
        }
    }

    close(epoll);
    close(loop.ticks);
    fastmq_requester_close(loop.asker);
    fastmq_unsubscribe(readings);
    fastmq_unsubscribe(questions);
    fastmq_close(loop.mq);
    return strcmp(loop.newest, "24") == 0 ? 0 : 1;
}
