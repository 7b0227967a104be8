/* Request and reply: a responder on its own thread, one question at a time, many at a time, and
 * the ways in which a question ends without an answer.
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

enum { QUESTIONS = 1000 };

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

/* A decimal number of up to 19 digits; 0 if it is none. */
static int parse(fastmq_bytes digits, uint64_t *number)
{
    char string[20] = {0};
    char *end = string;
    if (digits.size > 0 && digits.size < sizeof string) {
        memcpy(string, digits.data, digits.size);
        *number = strtoull(string, &end, 10);
    }
    return end != string && *end == '\0';
}

struct service {
    fastmq_client *mq;
    fastmq_queue *questions;
};

/* Answers one question: the token says whom the answer is for. */
static fastmq_status answer(fastmq_client *mq, const fastmq_message *question)
{
    uint64_t number = 0;
    if (!parse(question->payload, &number)) {
        fastmq_outgoing refusal = {.struct_size = sizeof refusal};
        refusal.payload = text("not a number");
        return fastmq_reply_message(mq, question->token, &refusal, FASTMQ_INVALID);
    }
    char square[24];
    snprintf(square, sizeof square, "%" PRIu64, number * number);
    return fastmq_reply(mq, question->token, text(square));
}

/* Answers `math.square` until its queue is drained. */
static void *serve(void *context)
{
    struct service *service = context;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(service->questions, 64, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            must(answer(service->mq, &messages[i]), "answer");
        }
        fastmq_batch_free(batch);
    }
    return NULL;
}

/* Asks a thousand questions without waiting in between; the answers come in batches. */
static int ask_many(fastmq_client *mq)
{
    fastmq_requester_options options = {.struct_size = sizeof options};
    fastmq_requester *requester = NULL;
    int right = 0;
    options.subject = text("math.square");
    must(fastmq_requester_open(mq, &options, &requester), "open a requester");
    for (uint64_t number = 0; number < QUESTIONS; number++) {
        char question[24];
        snprintf(question, sizeof question, "%" PRIu64, number);
        must(fastmq_requester_submit(requester, text(question), number, 5 * SECOND), "submit");
    }
    while (fastmq_requester_in_flight(requester) > 0) {
        fastmq_batch *batch = NULL;
        size_t count = 0;
        must(fastmq_requester_receive(requester, 64, FASTMQ_FOREVER, &batch), "receive answers");
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            uint64_t square = 0;
            /* The token is the one given with the question; the status says how it ended. */
            right += messages[i].status == FASTMQ_OK && parse(messages[i].payload, &square)
                && square == messages[i].token * messages[i].token;
        }
        fastmq_batch_free(batch);
    }
    fastmq_requester_close(requester);
    return right;
}

int main(void)
{
    struct service service = {NULL, NULL};
    fastmq_subscription *responder = NULL;
    pthread_t thread;
    must(fastmq_open(NULL, &service.mq), "open");
    must(fastmq_subscribe(service.mq, text("math.square"), NULL, &responder), "subscribe");
    service.questions = fastmq_subscription_queue(responder);
    if (pthread_create(&thread, NULL, serve, &service) != 0) {
        fprintf(stderr, "request_reply: cannot start a thread\n");
        return 1;
    }

    /* The answer is copied to where it is wanted. */
    char reply[64];
    size_t size = 0;
    must(fastmq_request_into(service.mq, text("math.square"), text("12"), 5 * SECOND, reply,
                             sizeof reply, &size), "ask");
    printf("12 squared is %.*s\n", (int)size, reply);

    int right = ask_many(service.mq);
    printf("%d of %d answers are right\n", right, QUESTIONS);

    /* The responder may refuse: its status and its words are in the answer. */
    fastmq_status refused = fastmq_request_into(service.mq, text("math.square"), text("twelve"),
                                                5 * SECOND, reply, sizeof reply, &size);
    printf("math.square of twelve: %s, %.*s\n", fastmq_status_name(refused), (int)size, reply);

    /* Nobody listens: the engine says so at once, whatever the time-out. */
    fastmq_status nobody = fastmq_request_into(service.mq, text("math.cube"), text("12"),
                                               FASTMQ_FOREVER, reply, sizeof reply, &size);
    printf("math.cube: %s\n", fastmq_status_name(nobody));

    /* Drain ends the responder's loop: its receive returns FASTMQ_END. */
    must(fastmq_drain(service.mq, 5 * SECOND), "drain");
    pthread_join(thread, NULL);
    fastmq_unsubscribe(responder);
    fastmq_close(service.mq);
    return right == QUESTIONS && refused == FASTMQ_INVALID && nobody == FASTMQ_NO_RESPONDER ? 0 : 1;
}
