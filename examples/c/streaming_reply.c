/* Many answers to one request: a census that asks everybody, and a search that streams what it
 * finds for as long as somebody wants to hear it.
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
        fprintf(stderr, "streaming_reply: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

struct service {
    fastmq_client *mq;
    fastmq_queue *questions;
};

static int is_prime(uint64_t number)
{
    for (uint64_t by = 2; by * by <= number; by++) {
        if (number % by == 0) {
            return 0;
        }
    }
    return number > 1;
}

/* Streams the primes from 2 on; the asker says how many it wants, by taking them. */
static void stream_primes(fastmq_client *mq, uint64_t token, uint64_t end)
{
    fastmq_reply_stream *stream = NULL;
    must(fastmq_reply_stream_open(mq, token, &stream), "open a reply stream");
    for (uint64_t number = 2; number < end; number++) {
        if (!is_prime(number)) {
            continue;
        }
        /* Waits while the asker is behind: its credit is what it can take. */
        fastmq_bytes prime = {(const uint8_t *)&number, sizeof number};
        fastmq_status sent = fastmq_reply_stream_send_wait(stream, prime, FASTMQ_FOREVER);
        if (sent == FASTMQ_CANCELLED) {
            printf("the search has stopped\n"); /* Nobody wants more. */
            break;
        }
        must(sent, "send a reply");
    }
    fastmq_status ended = fastmq_reply_stream_end(stream, FASTMQ_OK);
    if (ended != FASTMQ_CANCELLED) {
        must(ended, "end the stream");
    }
    fastmq_reply_stream_close(stream);
}

/* Answers `primes` until its queue is drained. */
static void *search(void *context)
{
    struct service *service = context;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(service->questions, 1, FASTMQ_FOREVER, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *question = fastmq_batch_messages(batch, &count);
        uint64_t token = question->token, end = 0;
        memcpy(&end, question->payload.data, sizeof end);
        fastmq_batch_free(batch); /* The token is good for longer. */
        stream_primes(service->mq, token, end);
    }
    return NULL;
}

/* Asks for the primes below `end` and takes `wanted` of them at most; how many came. */
static uint64_t take_primes(fastmq_requester *requester, uint64_t end, uint64_t wanted)
{
    fastmq_many_options options = {.struct_size = sizeof options};
    fastmq_outgoing request = {.struct_size = sizeof request};
    uint64_t primes = 0, last = 0;
    options.credit = 16;          /* As far may the search be ahead. */
    options.gap_ns = 10 * SECOND; /* It hangs if it is silent for so long. */
    request.payload = (fastmq_bytes){(const uint8_t *)&end, sizeof end};
    request.token = end;
    must(fastmq_requester_submit_many(requester, &request, FASTMQ_FOREVER, &options), "ask");
    for (int is_over = 0; !is_over;) {
        fastmq_batch *batch = NULL;
        size_t count = 0;
        must(fastmq_requester_receive(requester, 0, FASTMQ_FOREVER, &batch), "receive replies");
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            if ((messages[i].flags & FASTMQ_MESSAGE_END) != 0) {
                is_over = 1;
            } else if (primes < wanted) {
                memcpy(&last, messages[i].payload.data, sizeof last);
                if (++primes == wanted) {
                    printf("%llu primes are enough, the last is %llu\n",
                           (unsigned long long)primes, (unsigned long long)last);
                    must(fastmq_requester_cancel(requester, end), "cancel");
                }
            }
        }
        fastmq_batch_free(batch);
    }
    if (primes < wanted) {
        printf("%llu primes below %llu, the last is %llu\n", (unsigned long long)primes,
               (unsigned long long)end, (unsigned long long)last);
    }
    return primes;
}

/* A member of the census, inline: it answers on the asker's thread. */
static void report(const fastmq_message *question, void *context)
{
    struct service *service = context;
    must(fastmq_reply(service->mq, question->token, text("here")), "report");
}

int main(void)
{
    enum { MEMBERS = 3 };
    struct service service = {NULL, NULL};
    fastmq_subscription *members[MEMBERS], *searcher = NULL;
    fastmq_subscribe_options member = {.struct_size = sizeof member};
    fastmq_outgoing census = {.struct_size = sizeof census};
    fastmq_requester_options options = {.struct_size = sizeof options};
    fastmq_requester *requester = NULL;
    fastmq_batch *answers = NULL;
    size_t count = 0;
    pthread_t thread;
    must(fastmq_open(NULL, &service.mq), "open");

    /* Everybody who listens gets the question; one call waits for the answers of all. */
    member.delivery = FASTMQ_DELIVERY_INLINE;
    member.on_message = report;
    member.context = &service;
    for (int i = 0; i < MEMBERS; i++) {
        must(fastmq_subscribe(service.mq, text("census"), &member, &members[i]), "subscribe");
    }
    census.subject = text("census");
    must(fastmq_request_many(service.mq, &census, FASTMQ_ANSWERS_ALL, SECOND, &answers), "ask all");
    fastmq_batch_messages(answers, &count);
    printf("%zu members are here\n", count);
    fastmq_batch_free(answers);

    must(fastmq_subscribe(service.mq, text("primes"), NULL, &searcher), "subscribe");
    service.questions = fastmq_subscription_queue(searcher);
    if (pthread_create(&thread, NULL, search, &service) != 0) {
        fprintf(stderr, "streaming_reply: cannot start a thread\n");
        return 1;
    }
    options.subject = text("primes");
    must(fastmq_requester_open(service.mq, &options, &requester), "open a requester");
    /* A stream to its end, and one that is cancelled when there is enough. */
    uint64_t all = take_primes(requester, 1000, UINT64_MAX);
    uint64_t some = take_primes(requester, UINT64_MAX, 5000);

    /* Before drain: what a cancelled search had sent already is nobody's. */
    fastmq_requester_close(requester);
    must(fastmq_drain(service.mq, 5 * SECOND), "drain");
    pthread_join(thread, NULL);
    fastmq_unsubscribe(searcher);
    for (int i = 0; i < MEMBERS; i++) {
        fastmq_unsubscribe(members[i]);
    }
    fastmq_close(service.mq);
    return count == MEMBERS && all == 168 && some == 5000 ? 0 : 1;
}
