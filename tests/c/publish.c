/* Publishing: by subject, by handle, in batches; what a message carries, in which order it comes.
 *
 * Decided here: a message can be received as soon as its publish has returned. Every message
 * of a publisher carries its number and a `sequence` that rises by one; a gap in it is what the
 * subscriber misses of that publisher, and `lost_before` what of that a policy dropped. A batch stops at the
 * first message that cannot be published: `out_accepted` says how many went before it.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

/* Receives one message that must be there and says whether it carries this number. */
static int next_is(fastmq_queue *queue, uint32_t number)
{
    fastmq_batch *batch = NULL;
    if (fastmq_receive(queue, 1, 0, &batch) != FASTMQ_OK) {
        return 0;
    }
    size_t count = 0;
    const fastmq_message *messages = fastmq_batch_messages(batch, &count);
    int is = count == 1 && number_of(&messages[0]) == number;
    fastmq_batch_free(batch);
    return is;
}

static void by_subject_and_by_handle(fastmq_client *client)
{
    fastmq_subscription *subscription = subscribe(client, "one.subject");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_publisher *publisher = open_publisher(client, "one.subject");
    uint32_t number = 2;
    CHECK_STATUS(publish_number(client, "nobody.listens", 1), FASTMQ_OK,
                 "a publish that nobody wants succeeds");
    CHECK_STATUS(publish_number(client, "one.subject", 1), FASTMQ_OK, "publish by subject");
    CHECK(next_is(queue, 1), "the message is there as soon as publish has returned");
    CHECK_STATUS(fastmq_publisher_publish(publisher, bytes(&number, sizeof number)), FASTMQ_OK,
                 "publish by handle");
    CHECK(next_is(queue, 2), "the message of the handle is there");
    fastmq_outgoing message = outgoing("", bytes(&number, sizeof number));
    CHECK_STATUS(fastmq_publisher_publish_message(publisher, &message), FASTMQ_OK,
                 "publish a message by handle");
    CHECK(next_is(queue, 2), "and it is there");
    CHECK_STATUS(fastmq_publisher_publish_wait(publisher, message.payload, 0), FASTMQ_OK,
                 "publish_wait by handle, room at once");
    message.subject = text("one.subject");
    CHECK_STATUS(fastmq_publish_wait(client, &message, 0), FASTMQ_OK,
                 "publish_wait by subject, room at once");
    CHECK_NUMBER(take_all(queue), 2, "both are there");
    fastmq_batch *batch = NULL;
    CHECK_STATUS(fastmq_receive(queue, 1, 0, &batch), FASTMQ_AGAIN, "then nothing: AGAIN");
    CHECK_STATUS(fastmq_receive(queue, 1, MILLISECOND, &batch), FASTMQ_TIMEOUT,
                 "nothing within the time-out: TIMEOUT");
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(subscription);
}

static void what_a_message_carries(fastmq_client *client)
{
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *subscription = subscribe_on(client, "carries.*", queue, 4711);
    fastmq_outgoing outgoing_message = outgoing("carries.all", text("the payload"));
    outgoing_message.reply_to = text("answers.here");
    outgoing_message.key = bytes("k\0y", 3);
    NEED(fastmq_publish_message(client, &outgoing_message) == FASTMQ_OK);
    NEED(fastmq_publish(client, text("carries.little"), bytes(NULL, 0)) == FASTMQ_OK);
    size_t count = 0;
    const fastmq_message *m = NULL;
    fastmq_batch *batch = take(queue, 8, &m, &count);
    CHECK_NUMBER(count, 2, "one receive gives both messages");
    NEED(count == 2);
    CHECK(same(m[0].subject, "carries.all"), "the subject is the one published, not the pattern");
    CHECK(same(m[0].payload, "the payload"), "the payload");
    CHECK(((uintptr_t)m[0].payload.data & 7) == 0, "the payload starts at a multiple of 8");
    CHECK(same(m[0].reply_to, "answers.here"), "the reply address");
    CHECK(m[0].key.size == 3 && memcmp(m[0].key.data, "k\0y", 3) == 0, "the key, any bytes");
    CHECK_NUMBER(m[0].tag, 4711, "the tag given at subscribe");
    CHECK_NUMBER(m[0].subscription_id, fastmq_subscription_id(subscription),
                 "the id of the subscription");
    CHECK_NUMBER(m[0].status, FASTMQ_OK, "a message has status OK");
    CHECK_NUMBER(m[0].flags, 0, "and no flags");
    CHECK_NUMBER(m[0].token, 0, "nobody waits for an answer: token 0");
    CHECK_NUMBER(m[0].lost_before, 0, "nothing was lost before it");
    CHECK(m[0].reserved0 == 0, "the reserved field is 0");
    CHECK(m[0].sequence == 0 && m[0].publisher == 0, "no publisher has counted it");
    CHECK(m[1].payload.size == 0, "an empty payload arrives empty");
    CHECK(m[1].reply_to.data == NULL && m[1].reply_to.size == 0 && m[1].key.data == NULL
              && m[1].headers.data == NULL, "an absent field is NULL with size 0");
    fastmq_batch_free(batch);
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
}

static void wildcards_tags_and_ids(fastmq_client *client)
{
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    fastmq_subscription *exact = subscribe_on(client, "w.a.b", queue, 1);
    fastmq_subscription *star = subscribe_on(client, "w.*.b", queue, 2);
    fastmq_subscription *rest = subscribe_on(client, "w.>", queue, 4);
    fastmq_subscription *all = subscribe_on(client, ">", queue, 8);
    fastmq_subscription *twice = subscribe_on(client, "w.a.b", queue, 16);
    static const struct {
        const char *subject;
        uint64_t tags;
    } expected[] = {
        {"w.a.b", 1 + 2 + 4 + 8 + 16}, {"w.x.b", 2 + 4 + 8}, {"w.a", 4 + 8}, {"w", 8},
        {"w.a.b.c", 4 + 8}, {"W.a.b", 8}, {"v.a.b", 8},
    };
    size_t wrong = 0, wrong_ids = 0;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        uint64_t tags = 0;
        fastmq_batch *batch = NULL;
        NEED(publish_number(client, expected[i].subject, 1) == FASTMQ_OK);
        while (fastmq_receive(queue, 16, 0, &batch) == FASTMQ_OK) {
            size_t count = 0;
            const fastmq_message *m = fastmq_batch_messages(batch, &count);
            for (size_t j = 0; j < count; j++) {
                tags += m[j].tag; /* a message given twice to one subscription shows in the sum */
                wrong_ids += m[j].tag == 1
                    && m[j].subscription_id != fastmq_subscription_id(exact);
                wrong_ids += m[j].tag == 8 && m[j].subscription_id != fastmq_subscription_id(all);
            }
            fastmq_batch_free(batch);
        }
        if (tags != expected[i].tags) {
            printf("# %s reached tags %llu\n", expected[i].subject, (unsigned long long)tags);
            wrong++;
        }
    }
    CHECK_NUMBER(wrong, 0, "each subject reaches each matching subscription once, and no other");
    CHECK_NUMBER(wrong_ids, 0, "the subscription id belongs to the tag");
    CHECK(fastmq_subscription_id(exact) != fastmq_subscription_id(twice)
              && fastmq_subscription_id(exact) != 0, "ids differ and are not 0");
    fastmq_subscription_statistics figures = {.struct_size = sizeof figures};
    NEED(fastmq_subscription_statistics_read(star, &figures) == FASTMQ_OK);
    CHECK_NUMBER(figures.delivered, 2, "the statistics of a subscription count its messages");
    CHECK_NUMBER(figures.id, fastmq_subscription_id(star), "and tell its id");
    fastmq_unsubscribe(all);
    NEED(publish_number(client, "v.a.b", 1) == FASTMQ_OK);
    CHECK_NUMBER(take_all(queue), 0, "after unsubscribe nothing more comes");
    fastmq_unsubscribe(exact);
    fastmq_unsubscribe(star);
    fastmq_unsubscribe(rest);
    fastmq_unsubscribe(twice);
    fastmq_queue_close(queue);
}

static void order_and_sequence(fastmq_client *client)
{
    enum { COUNT = 5000 };
    fastmq_subscription *subscription = subscribe(client, "order.>");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_publisher *publisher = open_publisher(client, "order.handle");
    uint32_t by_subject = 0, by_handle = 0, wrong = 0, gaps = 0;
    uint64_t sequence = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        NEED(publish_number(client, i % 2 ? "order.a" : "order.b", i) == FASTMQ_OK);
        NEED(fastmq_publisher_publish(publisher, bytes(&i, sizeof i)) == FASTMQ_OK);
    }
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 100, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *m = fastmq_batch_messages(batch, &count);
        wrong += count > 100;
        for (size_t i = 0; i < count; i++) {
            int is_handle = same(m[i].subject, "order.handle");
            wrong += number_of(&m[i]) != (is_handle ? by_handle++ : by_subject++);
            if (is_handle && by_handle > 1) {
                gaps += m[i].sequence != sequence + 1;
            }
            gaps += (m[i].publisher != 0) != is_handle;
            sequence = is_handle ? m[i].sequence : sequence;
        }
        fastmq_batch_free(batch);
    }
    CHECK(by_subject == COUNT && by_handle == COUNT, "all messages arrive");
    CHECK_NUMBER(wrong, 0, "in order per writer, never more than asked for");
    CHECK_NUMBER(gaps, 0, "a publisher's sequence rises by one; without a publisher there is none");
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(subscription);
}

/* What a subscriber notes of two publishers. */
struct watch {
    uint64_t publisher, newest, missing;
};

static void gaps_of_each_publisher(fastmq_client *client)
{
    enum { COUNT = 3000 };
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_DROP_OLDEST, SMALL_CAPACITY);
    fastmq_subscription *subscription = subscribe_on(client, "gap", queue, 0);
    fastmq_publisher *publishers[2] = {open_publisher(client, "gap"), open_publisher(client, "gap")};
    struct watch watches[2] = {{0}, {0}};
    uint64_t lost = 0, strangers = 0;
    for (uint32_t i = 0; i <= COUNT; i++) {
        for (int at = 0; at < 2; at++) {
            NEED(fastmq_publisher_publish(publishers[at], bytes(&i, sizeof i)) == FASTMQ_OK);
        }
        fastmq_batch *batch = NULL;
        while ((i % 1000 == 999 || i == COUNT)
               && fastmq_receive(queue, 0, 0, &batch) == FASTMQ_OK) {
            size_t count = 0;
            const fastmq_message *m = fastmq_batch_messages(batch, &count);
            for (size_t k = 0; k < count; k++) {
                int at = watches[0].publisher == 0 || watches[0].publisher == m[k].publisher ? 0 : 1;
                strangers += watches[at].publisher != 0 && watches[at].publisher != m[k].publisher;
                watches[at].publisher = m[k].publisher;
                watches[at].missing += m[k].sequence - watches[at].newest - 1;
                watches[at].newest = m[k].sequence;
                lost += m[k].lost_before;
            }
            fastmq_batch_free(batch);
        }
    }
    CHECK(watches[0].newest == COUNT + 1 && watches[1].newest == COUNT + 1 && strangers == 0,
          "two publishers of one subject are told apart");
    CHECK(watches[0].missing > 0 && watches[1].missing > 0, "each has gaps of its own");
    CHECK_NUMBER(watches[0].missing + watches[1].missing, lost,
                 "which are what the queue says it dropped");
    fastmq_publisher_close(publishers[0]);
    fastmq_publisher_close(publishers[1]);
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
}

static void batches(fastmq_client *client)
{
    fastmq_subscription *subscription = subscribe(client, "batch.*");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    fastmq_publisher *publisher = open_publisher(client, "batch.handle");
    uint32_t numbers[8];
    fastmq_bytes payloads[8];
    fastmq_outgoing messages[8];
    size_t accepted = 77;
    for (uint32_t i = 0; i < 8; i++) {
        numbers[i] = i;
        payloads[i] = bytes(&numbers[i], sizeof numbers[i]);
        messages[i] = outgoing("batch.subject", payloads[i]);
    }
    CHECK_STATUS(fastmq_publish_batch(client, messages, 8, &accepted), FASTMQ_OK,
                 "a batch by subject");
    CHECK_NUMBER(accepted, 8, "all accepted");
    for (uint32_t i = 0; i < 8; i++) {
        NEED(next_is(queue, i));
    }
    CHECK_STATUS(fastmq_publisher_publish_batch(publisher, payloads, 8, &accepted), FASTMQ_OK,
                 "a batch by handle");
    CHECK_NUMBER(take_all(queue), 8, "arrives as a whole");
    CHECK_STATUS(fastmq_publish_batch(client, NULL, 0, &accepted), FASTMQ_OK, "an empty batch");
    CHECK_NUMBER(accepted, 0, "accepts none");
    messages[5].subject = text("batch..subject");
    CHECK_STATUS(fastmq_publish_batch(client, messages, 8, &accepted), FASTMQ_INVALID,
                 "a batch with a bad subject in it is INVALID");
    CHECK_NUMBER(accepted, 5, "the messages before it are accepted");
    CHECK_NUMBER(take_all(queue), 5, "and published");
    fastmq_publisher_close(publisher);
    fastmq_unsubscribe(subscription);
}

static void headers(fastmq_client *client)
{
    fastmq_subscription *subscription = subscribe(client, "headers");
    fastmq_headers *set = NULL;
    static char large[70000];
    NEED(fastmq_headers_open(&set) == FASTMQ_OK);
    CHECK_STATUS(fastmq_headers_add(set, text("Content-Type"), text("text/plain")), FASTMQ_OK,
                 "a header is added");
    NEED(fastmq_headers_add(set, text("trace"), text("first")) == FASTMQ_OK);
    NEED(fastmq_headers_add(set, text("trace"), text("second")) == FASTMQ_OK);
    CHECK_STATUS(fastmq_headers_add(set, text("empty"), bytes(NULL, 0)), FASTMQ_OK,
                 "a value may be empty");
    CHECK(fastmq_headers_add(set, text(""), text("x")) == FASTMQ_INVALID, "a name may not");
    CHECK(fastmq_headers_add(set, text("a\nb"), text("x")) == FASTMQ_INVALID,
          "a name with a control character is INVALID");
    CHECK(fastmq_headers_add(set, bytes(large, 256), text("x")) != FASTMQ_OK,
          "a name of 256 bytes is refused");
    CHECK_STATUS(fastmq_headers_add(set, text("x"), bytes(large, sizeof large)),
                 FASTMQ_TOO_LARGE, "headers above 64 KiB are TOO_LARGE");
    fastmq_outgoing message = outgoing("headers", text("body"));
    message.headers = set;
    NEED(fastmq_publish_message(client, &message) == FASTMQ_OK);
    fastmq_headers_clear(set);
    NEED(fastmq_publish_message(client, &message) == FASTMQ_OK);
    fastmq_headers_close(set);

    const fastmq_message *m = NULL;
    size_t count = 0, cursor = 0, seen = 0, in_order = 0;
    static const char *const order[] = {"Content-Type", "trace", "trace", "empty"};
    fastmq_batch *batch = take(fastmq_subscription_queue(subscription), 2, &m, &count);
    NEED(count == 2);
    fastmq_bytes name, value;
    CHECK(fastmq_headers_get(m[0].headers, text("content-TYPE"), &value) == FASTMQ_OK
              && same(value, "text/plain"), "a name is found without regard to ASCII case");
    CHECK(fastmq_headers_get(m[0].headers, text("trace"), &value) == FASTMQ_OK
              && same(value, "first"), "of two values the first is found");
    CHECK_STATUS(fastmq_headers_get(m[0].headers, text("absent"), &value), FASTMQ_NOT_FOUND,
                 "an absent name is NOT_FOUND");
    while (fastmq_headers_next(m[0].headers, &cursor, &name, &value) == FASTMQ_OK && seen < 4) {
        in_order += same(name, order[seen]);
        seen++;
    }
    CHECK(seen == 4 && in_order == 4, "all come in the order in which they were added");
    CHECK_STATUS(fastmq_headers_next(m[0].headers, &cursor, &name, &value), FASTMQ_END,
                 "then END");
    CHECK(m[1].headers.size == 0, "cleared headers are gone from the next message");
    cursor = 0;
    CHECK_STATUS(fastmq_headers_next(m[1].headers, &cursor, &name, &value), FASTMQ_END,
                 "a message without headers gives END at once");
    static const uint8_t hostile[] = {0xff, 0xff, 0xff, 0xff, 'x'};
    cursor = 0;
    CHECK(fastmq_headers_get(bytes(hostile, 5), text("x"), &value) != FASTMQ_OK
              && fastmq_headers_next(bytes(hostile, 5), &cursor, &name, &value) != FASTMQ_OK,
          "bytes that are no headers are refused");
    cursor = SIZE_MAX - 1;
    CHECK(fastmq_headers_next(m[0].headers, &cursor, &name, &value) != FASTMQ_OK,
          "and so is a cursor from elsewhere");
    fastmq_batch_free(batch);
    fastmq_unsubscribe(subscription);
}

static void time_to_live(fastmq_client *client)
{
    fastmq_subscription *subscription = subscribe(client, "ttl");
    fastmq_queue *queue = fastmq_subscription_queue(subscription);
    uint32_t number = 1;
    fastmq_outgoing message = outgoing("ttl", bytes(&number, sizeof number));
    message.ttl_ns = MILLISECOND;
    NEED(fastmq_publish_message(client, &message) == FASTMQ_OK);
    number = 2;
    message.ttl_ns = 3600 * SECOND;
    NEED(fastmq_publish_message(client, &message) == FASTMQ_OK);
    number = 3;
    message.ttl_ns = FASTMQ_FOREVER;
    NEED(fastmq_publish_message(client, &message) == FASTMQ_OK);
    let_time_pass(client, 20);
    CHECK(next_is(queue, 2), "an expired message is skipped, its successor comes");
    CHECK(next_is(queue, 3), "the largest time to live does not overflow");
    CHECK_NUMBER(queue_figures(queue).expired, 1, "the queue counts it as expired");
    CHECK_NUMBER(queue_figures(queue).dropped, 0, "not as dropped");
    fastmq_unsubscribe(subscription);
}

static void large_payloads(fastmq_client *client)
{
    fastmq_subscription *first = subscribe(client, "large"), *second = subscribe(client, "large");
    size_t sizes[] = {1023, 1024, 4096, 65535, 65536, 1 << 20}, wrong = 0;
    uint8_t *block = malloc(1 << 20);
    NEED(block != NULL);
    for (size_t i = 0; i < 1 << 20; i++) {
        block[i] = (uint8_t)(i * 31 >> 3);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        NEED(fastmq_publish(client, text("large"), bytes(block, sizes[i])) == FASTMQ_OK);
        fastmq_subscription *both[] = {first, second};
        for (size_t j = 0; j < 2; j++) {
            const fastmq_message *m = NULL;
            size_t count = 0;
            fastmq_batch *batch = take(fastmq_subscription_queue(both[j]), 1, &m, &count);
            wrong += m[0].payload.size != sizes[i]
                || memcmp(m[0].payload.data, block, sizes[i]) != 0;
            fastmq_batch_free(batch);
        }
    }
    CHECK_NUMBER(wrong, 0, "payloads from 1 KiB to 1 MiB arrive byte for byte at every reader");
    free(block);
    fastmq_unsubscribe(first);
    fastmq_unsubscribe(second);
}

int main(void)
{
    check_begin();
    fastmq_client *client = open_client();
    by_subject_and_by_handle(client);
    what_a_message_carries(client);
    wildcards_tags_and_ids(client);
    order_and_sequence(client);
    gaps_of_each_publisher(client);
    batches(client);
    headers(client);
    time_to_live(client);
    large_payloads(client);
    CHECK_NUMBER(client_figures(client).threads, 0, "none of this has started a thread");
    fastmq_close(client);
    return check_end();
}
