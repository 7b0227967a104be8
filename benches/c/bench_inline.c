/* A request answered on the asker's own thread: an INLINE responder that calls fastmq_reply.
 * By string the 1,024 subjects are used in turn, each with its own subscription.
 */
#include "bench.h"

#include <stdio.h>
#include <string.h>

#define CALLS_PER_STEP 1024
#define PAYLOAD_BYTES 16

struct asker {
    fastmq_client *client;
    fastmq_requester *requester; /* NULL: by string */
    uint64_t number, wrong;
};

static void answer(const fastmq_message *message, void *context) {
    bench_check(fastmq_reply(context, message->token, message->payload), "fastmq_reply");
}

static uint64_t step(void *context) {
    struct asker *asker = context;
    for (uint32_t index = 0; index < CALLS_PER_STEP; index++) {
        uint8_t bytes[PAYLOAD_BYTES], reply[PAYLOAD_BYTES];
        size_t size;
        uint64_t number = asker->number++;
        bench_stamp(bytes, sizeof bytes, number);
        fastmq_bytes payload = bench_bytes(bytes, sizeof bytes);
        fastmq_status status;
        if (asker->requester == NULL)
            status = fastmq_request_into(asker->client, bench_name(index), payload,
                                         BENCH_TIMEOUT_NS, reply, sizeof reply, &size);
        else
            status = fastmq_requester_request_into(asker->requester, payload, BENCH_TIMEOUT_NS,
                                                   reply, sizeof reply, &size);
        bench_check(status, "request_into");
        asker->wrong += !bench_is_stamped(reply, size, sizeof reply, number);
    }
    return CALLS_PER_STEP;
}

void bench_inline(const struct bench_plan *plan, const char *param) {
    bool is_by_name = strcmp(param, "string") == 0;
    if (!is_by_name && strcmp(param, "handle") != 0)
        bench_fail("%s is neither string nor handle", param);
    bench_pin(1);
    struct asker asker = {.client = bench_open(FASTMQ_WAIT_BUSY_POLL)};
    for (uint32_t index = 0; index < BENCH_SUBJECTS; index++) {
        fastmq_subscribe_options options = {.struct_size = sizeof options,
                                            .delivery = FASTMQ_DELIVERY_INLINE,
                                            .on_message = answer,
                                            .context = asker.client};
        fastmq_subscription *subscription;
        bench_check(fastmq_subscribe(asker.client, bench_name(index), &options, &subscription),
                    "fastmq_subscribe");
    }
    if (!is_by_name) {
        fastmq_requester_options options = {.struct_size = sizeof options,
                                            .subject = bench_name(7)};
        bench_check(fastmq_requester_open(asker.client, &options, &asker.requester),
                    "fastmq_requester_open");
    }
    double rate = bench_rate(plan, step, NULL, &asker);
    fastmq_requester_close(asker.requester);
    fastmq_close(asker.client);
    if (asker.wrong != 0)
        bench_fail("fastmq-bench: %llu answers are wrong", (unsigned long long)asker.wrong);
    bench_print("fastmq", "inline", param, "M pairs/s", rate);
}
