/* Foreign loops: fds that are readable exactly while there is something to do, a dispatch that
 * keeps to its budget, and deadlines for loops that have their own timers.
 *
 * Decided here: the client's fd covers every queue, requester and deadline of the client. A
 * dispatch that finds nothing is OK with `ready` 0. An fd may stay readable until the receive or
 * dispatch that finds nothing; after that it is quiet.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

#include <poll.h>

static int is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1 && (one.revents & POLLIN) != 0;
}

static int becomes_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, (int)(PATIENCE / MILLISECOND)) == 1;
}

/* Dispatches until nothing is ready; returns all that was. */
static uint32_t dispatch_all(fastmq_client *client)
{
    uint32_t all = 0, ready = 1;
    for (int i = 0; i < 1000 && ready != 0; i++) {
        NEED(fastmq_dispatch(client, 100, FASTMQ_FOREVER, &ready) == FASTMQ_OK);
        all |= ready;
        ready &= ~(uint32_t)FASTMQ_READY_MESSAGES; /* queues are drained by their readers */
    }
    return all;
}

static void queue_fd(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "fd");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_batch *batch = NULL;
    NEED(publish_number(client, "fd", 1) == FASTMQ_OK);
    int fd = fastmq_queue_fd(queue);
    CHECK(fd >= 0, "a queue has an fd");
    CHECK_NUMBER(fastmq_queue_fd(queue), fd, "always the same");
    CHECK(is_readable(fd), "an fd asked for late knows what came before");
    NEED(take_all(queue) == 1);
    CHECK(!is_readable(fd), "a receive that finds nothing clears it");
    for (uint32_t i = 0; i < 10; i++) {
        NEED(publish_number(client, "fd", i) == FASTMQ_OK);
    }
    CHECK(is_readable(fd) && is_readable(fd), "it is level-triggered: it stays readable");
    NEED(fastmq_receive(queue, 9, 0, &batch) == FASTMQ_OK);
    fastmq_batch_free(batch);
    CHECK(is_readable(fd), "a receive that leaves a message leaves it readable");
    NEED(take_all(queue) == 1);
    CHECK(!is_readable(fd), "then it is quiet again");
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        wrong += publish_number(client, "fd", i) != FASTMQ_OK || !is_readable(fd);
        wrong += take_all(queue) != 1 || is_readable(fd);
    }
    CHECK_NUMBER(wrong, 0, "a thousand times up and down without a lost edge");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

static void client_fd_and_queues(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *a = subscribe(client, "fd.a"), *b = subscribe(client, "fd.b");
    int fd = fastmq_fd(client);
    uint32_t ready = 77;
    CHECK(fd >= 0, "a client has an fd");
    CHECK(!is_readable(fd), "nothing to do: not readable");
    CHECK_STATUS(fastmq_dispatch(client, 100, SECOND, &ready), FASTMQ_OK,
                 "a dispatch with nothing to do is OK");
    CHECK_NUMBER(ready, 0, "and says that nothing is ready");
    NEED(publish_number(client, "fd.a", 1) == FASTMQ_OK);
    CHECK(is_readable(fd), "a message in a queue makes the client readable");
    NEED(fastmq_dispatch(client, 100, SECOND, &ready) == FASTMQ_OK);
    CHECK((ready & FASTMQ_READY_MESSAGES) != 0, "dispatch says that messages are ready");
    NEED(publish_number(client, "fd.b", 2) == FASTMQ_OK);
    NEED(take_all(fastmq_subscription_queue(a)) == 1);
    CHECK(is_readable(fd), "one of two queues drained: still readable");
    NEED(take_all(fastmq_subscription_queue(b)) == 1);
    dispatch_all(client);
    CHECK(!is_readable(fd), "both drained: quiet");
    CHECK_NUMBER(client_figures(client).threads, 0, "all of it without a thread");
    fastmq_unsubscribe(a);
    fastmq_unsubscribe(b);
    fastmq_close(client);
}

static void room_again(void)
{
    fastmq_client *client = open_small_client(0);
    fastmq_subscription *subscription = subscribe(client, "room");
    int fd = fastmq_fd(client);
    uint32_t number = 0;
    while (number < 1000 && publish_wide(client, "room", number) == FASTMQ_OK) {
        number++;
    }
    CHECK(number >= 1 && number < 1000, "the queue is full");
    NEED(take_all(fastmq_subscription_queue(subscription)) == number);
    CHECK(is_readable(fd), "room after an AGAIN makes the client readable");
    CHECK((dispatch_all(client) & FASTMQ_READY_ROOM) != 0, "and dispatch says ROOM");
    CHECK_STATUS(publish_wide(client, "room", number), FASTMQ_OK, "so that publish goes on");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

static void count_calls(const fastmq_message *message, void *context)
{
    (void)message;
    ++*(uint32_t *)context;
}

static void spin_two_milliseconds(const fastmq_message *message, void *context)
{
    struct timespec start, now;
    int64_t spent;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
        spent = (now.tv_sec - start.tv_sec) * (int64_t)SECOND + now.tv_nsec - start.tv_nsec;
    } while (spent < (int64_t)(2 * MILLISECOND));
    count_calls(message, context);
}

static void dispatch_budget(void)
{
    fastmq_client *client = open_client();
    uint32_t calls = 0, ready = 0;
    fastmq_subscription *counted = subscribe_call(client, "many", FASTMQ_DELIVERY_DISPATCH,
                                                  count_calls, &calls);
    int fd = fastmq_fd(client);
    for (uint32_t i = 0; i < 25; i++) {
        NEED(publish_number(client, "many", i) == FASTMQ_OK);
    }
    CHECK(is_readable(fd), "messages for DISPATCH make the client readable");
    NEED(fastmq_dispatch(client, 10, FASTMQ_FOREVER, &ready) == FASTMQ_OK);
    CHECK_NUMBER(calls, 10, "dispatch stops at its budget of messages");
    CHECK((ready & FASTMQ_READY_MORE) != 0 && is_readable(fd), "and says that there is MORE");
    NEED(fastmq_dispatch(client, 10, FASTMQ_FOREVER, &ready) == FASTMQ_OK);
    NEED(fastmq_dispatch(client, 10, FASTMQ_FOREVER, &ready) == FASTMQ_OK);
    CHECK_NUMBER(calls, 25, "the next ones go on where it stopped");
    CHECK((ready & FASTMQ_READY_MORE) == 0, "the last one has no MORE");
    dispatch_all(client);
    CHECK(!is_readable(fd), "then it is quiet");

    calls = 0;
    fastmq_subscription *slow = subscribe_call(client, "slow", FASTMQ_DELIVERY_DISPATCH,
                                               spin_two_milliseconds, &calls);
    for (uint32_t i = 0; i < 10; i++) {
        NEED(publish_number(client, "slow", i) == FASTMQ_OK);
    }
    NEED(fastmq_dispatch(client, 100, MILLISECOND, &ready) == FASTMQ_OK);
    CHECK(calls >= 1 && calls < 10, "dispatch stops at its budget of time, after one at least");
    CHECK((ready & FASTMQ_READY_MORE) != 0, "and says MORE");
    dispatch_all(client);
    CHECK_NUMBER(calls, 10, "nothing is lost by stopping");
    fastmq_unsubscribe(counted);
    fastmq_unsubscribe(slow);
    fastmq_close(client);
}

static void answers_and_deadlines(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *responder = subscribe(client, "ask");
    fastmq_queue *queue = fastmq_subscription_queue(responder);
    fastmq_requester *requester = open_requester(client, "ask", 0);
    int fd = fastmq_fd(client), own_fd = fastmq_requester_fd(requester);
    fastmq_batch *batch = NULL;
    size_t count = 0;
    CHECK_NUMBER(fastmq_next_deadline(client), FASTMQ_FOREVER, "nothing pending: no deadline");
    NEED(fastmq_requester_submit(requester, text("?"), 1, 100 * SECOND) == FASTMQ_OK);
    uint64_t deadline = fastmq_next_deadline(client);
    CHECK(deadline > 0 && deadline <= 101 * SECOND, "a pending request has a deadline from now");
    CHECK(!is_readable(own_fd), "no answer: the requester's fd is quiet");
    const fastmq_message *m = NULL;
    batch = take(queue, 1, &m, &count);
    NEED(fastmq_reply(client, m[0].token, text("!")) == FASTMQ_OK);
    fastmq_batch_free(batch);
    CHECK(is_readable(own_fd), "an answer makes the requester's fd readable");
    CHECK(is_readable(fd), "and the client's");
    CHECK((dispatch_all(client) & FASTMQ_READY_ANSWERS) != 0, "dispatch says ANSWERS");
    NEED(fastmq_requester_receive(requester, 8, 0, &batch) == FASTMQ_OK);
    fastmq_batch_free(batch);
    CHECK_STATUS(fastmq_requester_receive(requester, 8, 0, &batch), FASTMQ_AGAIN, "one answer");
    dispatch_all(client);
    CHECK(!is_readable(own_fd) && !is_readable(fd), "collected: both are quiet");
    CHECK_NUMBER(fastmq_next_deadline(client), FASTMQ_FOREVER, "and the deadline is gone");

    NEED(fastmq_requester_submit(requester, text("?"), 2, 200 * MILLISECOND) == FASTMQ_OK);
    NEED(take_all(queue) == 1); /* the question, which nobody answers */
    dispatch_all(client);
    CHECK(becomes_readable(fd), "an expired deadline makes the client readable by itself");
    uint32_t ready = dispatch_all(client);
    CHECK((ready & (FASTMQ_READY_ANSWERS | FASTMQ_READY_DEADLINE)) != 0, "dispatch says so");
    NEED(fastmq_requester_receive(requester, 8, 0, &batch) == FASTMQ_OK);
    m = fastmq_batch_messages(batch, &count);
    CHECK(count == 1 && m[0].token == 2 && m[0].status == FASTMQ_TIMEOUT,
          "the answer is TIMEOUT, without having waited in receive");
    fastmq_batch_free(batch);
    CHECK_STATUS(fastmq_requester_receive(requester, 8, 0, &batch), FASTMQ_AGAIN, "once");
    dispatch_all(client);
    CHECK(!is_readable(fd), "then it is quiet again");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
    fastmq_close(client);
}

/* Without the requester's own fd, and for fates that no message tells. */
static void fates_by_the_client_alone(void)
{
    fastmq_client *client = open_client();
    fastmq_requester *requester = open_requester(client, "ask", 0);
    fastmq_batch *batch = NULL;
    int fd = fastmq_fd(client);
    NEED(fastmq_requester_submit(requester, text("?"), 1, FASTMQ_FOREVER) == FASTMQ_OK);
    CHECK(is_readable(fd), "NO_RESPONDER makes the client readable");
    CHECK((dispatch_all(client) & FASTMQ_READY_ANSWERS) != 0, "dispatch says ANSWERS");
    NEED(fastmq_requester_receive(requester, 8, 0, &batch) == FASTMQ_OK);
    fastmq_batch_free(batch);
    CHECK_NUMBER(dispatch_all(client), 0, "received: nothing is left");
    CHECK(!is_readable(fd), "and the client is quiet");

    fastmq_subscription *responder = subscribe(client, "ask");
    NEED(fastmq_requester_submit(requester, text("?"), 2, 20 * MILLISECOND) == FASTMQ_OK);
    NEED(take_all(fastmq_subscription_queue(responder)) == 1);
    CHECK((dispatch_all(client) & FASTMQ_READY_MESSAGES) == 0, "the question is taken");
    CHECK(fastmq_next_deadline(client) <= SECOND, "its deadline is known without a receive");
    CHECK(becomes_readable(fd), "and makes the client readable by itself");
    fastmq_requester_close(requester);
    fastmq_unsubscribe(responder);
    fastmq_close(client);
}

/* What a batch leaves behind is there again when the batch is freed. */
static void dispatch_beside_an_open_batch(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "rest");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    const fastmq_message *m = NULL;
    size_t count = 0;
    uint32_t ready = 0;
    int fd = fastmq_fd(client);
    for (uint32_t i = 0; i < 2; i++) {
        NEED(publish_number(client, "rest", i) == FASTMQ_OK);
    }
    fastmq_batch *batch = take(queue, 1, &m, &count);
    NEED(fastmq_dispatch(client, 0, 0, &ready) == FASTMQ_OK);
    CHECK(!is_readable(fd), "an open batch: nothing to do");
    fastmq_batch_free(batch);
    CHECK(is_readable(fd), "it is freed: the rest makes the client readable");
    NEED(fastmq_dispatch(client, 0, 0, &ready) == FASTMQ_OK);
    CHECK_NUMBER(ready, FASTMQ_READY_MESSAGES, "and dispatch says MESSAGES");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

static void fd_after_a_time_out(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *subscription = subscribe(client, "late");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_batch *batch = NULL;
    int fd = fastmq_queue_fd(queue);
    NEED(publish_number(client, "late", 1) == FASTMQ_OK);
    NEED(fastmq_receive(queue, 0, MILLISECOND, &batch) == FASTMQ_OK);
    fastmq_batch_free(batch);
    CHECK_STATUS(fastmq_receive(queue, 0, MILLISECOND, &batch), FASTMQ_TIMEOUT, "nothing more");
    CHECK(!is_readable(fd), "a receive that timed out found nothing: the fd is quiet");
    fastmq_unsubscribe(subscription);
    fastmq_close(client);
}

enum { ROUNDS = 2000 };

struct pong {
    fastmq_client *client;
    fastmq_queue *queue;
    uint32_t answered;
};

/* The other side of the ping-pong: waits in poll(2), answers each ping. */
static void *pong(void *context)
{
    struct pong *own = context;
    int fd = fastmq_queue_fd(own->queue);
    while (own->answered < ROUNDS && becomes_readable(fd)) {
        size_t count = take_all(own->queue);
        for (size_t i = 0; i < count; i++) {
            publish_number(own->client, "pong", own->answered++);
        }
    }
    return NULL;
}

static void waking_through_poll(void)
{
    fastmq_client *client = open_client();
    fastmq_subscription *ping = subscribe(client, "ping"), *back = subscribe(client, "pong");
    fastmq_queue *answers = fastmq_subscription_queue(back);
    struct pong other = {client, fastmq_subscription_queue(ping), 0};
    pthread_t thread = start_thread(pong, &other);
    uint32_t received = 0;
    int by_client = fastmq_fd(client), by_queue = fastmq_queue_fd(answers), lost = 0;
    for (uint32_t i = 0; i < ROUNDS && !lost; i++) {
        NEED(publish_number(client, "ping", i) == FASTMQ_OK);
        while (received <= i && !lost) {
            lost = !becomes_readable(i % 2 ? by_client : by_queue);
            dispatch_all(client);
            received += (uint32_t)take_all(answers);
        }
    }
    CHECK(!lost && received == ROUNDS, "two threads wake each other through poll(2), no lost wake");
    pthread_join(thread, NULL);
    fastmq_unsubscribe(ping);
    fastmq_unsubscribe(back);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    queue_fd();
    client_fd_and_queues();
    room_again();
    dispatch_budget();
    answers_and_deadlines();
    fates_by_the_client_alone();
    dispatch_beside_an_open_batch();
    fd_after_a_time_out();
    waking_through_poll();
    return check_end();
}
