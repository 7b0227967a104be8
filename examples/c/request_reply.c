/* Request and reply: a responder on its own thread, one question at a time, many at a time, and
 * the ways in which a question ends without an answer.
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <pthread.h>
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
        fprintf(stderr, "request_reply: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

struct service {
    fastmq_client *mq;
    fastmq_queue *questions;
};

/* Answers `math.square` until its queue is drained: the token says whom the answer is for. */
static void *answer(void *context)
{
    struct service *service = context;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(service->questions, 64, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            uint64_t number = 0;
            if (messages[i].payload.size == sizeof number) {
                memcpy(&number, messages[i].payload.data, sizeof number);
            }
            number *= number;
            fastmq_bytes square = {(const uint8_t *)&number, sizeof number};
            fastmq_reply(service->mq, messages[i].token, square);
        }
        fastmq_batch_free(batch);
    }
    return NULL;
}

/* Asks a thousand questions without waiting in between; the answers come in batches. */
static uint64_t ask_many(fastmq_client *mq)
{
    enum { QUESTIONS = 1000 };
    fastmq_requester_options options = {.struct_size = sizeof options};
    fastmq_requester *requester = NULL;
    uint64_t sum = 0, answers = 0;
    options.subject = text("math.square");
    must(fastmq_requester_open(mq, &options, &requester), "open a requester");
    for (uint64_t number = 1; number <= QUESTIONS; number++) {
        fastmq_bytes question = {(const uint8_t *)&number, sizeof number};
        must(fastmq_requester_submit(requester, question, number, 5 * SECOND), "submit");
    }
    while (answers < QUESTIONS) {
        fastmq_batch *batch = NULL;
        size_t count = 0;
        must(fastmq_requester_receive(requester, 64, FASTMQ_FOREVER, &batch), "receive answers");
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            uint64_t square = 0;
            /* The token is the one given with the question; the status says how it ended. */
            must(messages[i].status, "an answer");
            memcpy(&square, messages[i].payload.data, sizeof square);
            sum += square == messages[i].token * messages[i].token;
        }
        answers += count;
        fastmq_batch_free(batch);
    }
    fastmq_requester_close(requester);
    return sum;
}

int main(void)
{
    struct service service = {NULL, NULL};
    fastmq_subscription *responder = NULL;
    pthread_t thread;
    must(fastmq_open(NULL, &service.mq), "open");
    must(fastmq_subscribe(service.mq, text("math.square"), NULL, &responder), "subscribe");
    service.questions = fastmq_subscription_queue(responder);
    if (pthread_create(&thread, NULL, answer, &service) != 0) {
        fprintf(stderr, "request_reply: cannot start a thread\n");
        return 1;
    }

    uint64_t number = 12, square = 0;
    size_t size = 0;
    fastmq_bytes question = {(const uint8_t *)&number, sizeof number};
    must(fastmq_request_into(service.mq, text("math.square"), question, 5 * SECOND, &square,
                             sizeof square, &size), "ask");
    printf("12 squared is %llu\n", (unsigned long long)square);

    uint64_t right = ask_many(service.mq);
    printf("%llu of 1000 answers are right\n", (unsigned long long)right);

    /* Nobody listens: the engine says so at once, whatever the time-out. */
    fastmq_status nobody = fastmq_request_into(service.mq, text("math.cube"), question,
                                               FASTMQ_FOREVER, &square, sizeof square, &size);
    printf("math.cube: %s\n", fastmq_status_text(nobody));

    /* Drain ends the responder's loop: its receive returns FASTMQ_END. */
    must(fastmq_drain(service.mq, 5 * SECOND), "drain");
    pthread_join(thread, NULL);
    fastmq_unsubscribe(responder);
    fastmq_close(service.mq);
    return square == 144 && right == 1000 && nobody == FASTMQ_NO_RESPONDER ? 0 : 1;
}
