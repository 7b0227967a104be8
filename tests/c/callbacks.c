/* Callbacks: on which thread they run, what may be done inside them, and when they end.
 *
 * Decided here: closing the client or the subscription inside its own callback does not wait for
 * that callback, and the message stays readable until the callback returns. When unsubscribe
 * returns to any other thread, no callback of that subscription runs and none will, INLINE ones
 * included.
 */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

#include <stdbool.h>
#include <stdlib.h>

/* One callback's surroundings; the gate counts the calls. */
struct scene {
    struct gate calls;
    fastmq_client *client;
    _Atomic(fastmq_subscription *) subscription;
    pthread_t thread;   /* that ran the last call */
    uint32_t number;    /* of the last message */
    fastmq_status status;
    uint32_t depth, depth_max;
    struct gate release;
    atomic_int is_dead; /* set when no call may come any more, or when the last one has ended */
    atomic_int violations;
};

static struct scene new_scene(fastmq_client *client)
{
    struct scene scene = {.calls = GATE_INIT, .client = client, .release = GATE_INIT};
    return scene;
}

static void note(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    scene->thread = pthread_self();
    scene->number = number_of(message);
    gate_add(&scene->calls, 1);
}

static void threads_of_the_deliveries(void)
{
    fastmq_client *client = open_client();
    struct scene by_thread = new_scene(client), by_dispatch = new_scene(client),
                 by_inline = new_scene(client);
    uint32_t ready = 0;
    fastmq_subscription *a = subscribe_call(client, "on.inline", FASTMQ_DELIVERY_INLINE, note,
                                            &by_inline);
    fastmq_subscription *b = subscribe_call(client, "on.dispatch", FASTMQ_DELIVERY_DISPATCH, note,
                                            &by_dispatch);
    CHECK_NUMBER(client_figures(client).threads, 0, "INLINE and DISPATCH start no thread");
    CHECK(fastmq_subscription_queue(a) == NULL, "an inline subscription has no queue");
    NEED(publish_number(client, "on.inline", 1) == FASTMQ_OK);
    CHECK(gate_count(&by_inline.calls) == 1 && by_inline.number == 1
              && pthread_equal(by_inline.thread, pthread_self()),
          "INLINE has run on the publishing thread when publish returns");
    NEED(publish_number(client, "on.dispatch", 2) == FASTMQ_OK);
    CHECK_NUMBER(gate_count(&by_dispatch.calls), 0, "DISPATCH waits for fastmq_dispatch");
    CHECK_STATUS(fastmq_dispatch(client, 10, SECOND, &ready), FASTMQ_OK, "dispatch");
    CHECK(gate_count(&by_dispatch.calls) == 1 && by_dispatch.number == 2
              && pthread_equal(by_dispatch.thread, pthread_self()), "runs it on this thread");
    fastmq_subscription *c = subscribe_call(client, "on.thread", FASTMQ_DELIVERY_THREAD, note,
                                            &by_thread);
    NEED(publish_number(client, "on.thread", 3) == FASTMQ_OK);
    CHECK(gate_wait(&by_thread.calls, 1) && by_thread.number == 3
              && !pthread_equal(by_thread.thread, pthread_self()),
          "THREAD runs it on a thread of the library");
    CHECK_NUMBER(client_figures(client).threads, 1, "which the statistics count");
    fastmq_unsubscribe(a);
    fastmq_unsubscribe(b);
    fastmq_unsubscribe(c);
    fastmq_close(client);
}

static void unsubscribe_inside(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    fastmq_unsubscribe(atomic_load(&scene->subscription));
    scene->number = number_of(message); /* still readable */
    gate_add(&scene->calls, 1);
}

static void close_inside(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    fastmq_close(scene->client);
    scene->number = number_of(message);
    scene->status = publish_number(scene->client, "in.callback", 1);
    gate_add(&scene->calls, 1);
}

static void inside(fastmq_delivery delivery, const char *name)
{
    char line[120];
    uint32_t ready = 0;
    fastmq_client *client = open_client();
    /* Static: a callback that has closed its client may still be on its last line afterwards. */
    static struct scene scenes[4];
    struct scene *scene = &scenes[delivery];
    *scene = new_scene(client);
    atomic_store(&scene->subscription, subscribe_call(client, "in.callback", delivery,
                                                      unsubscribe_inside, scene));
    for (uint32_t i = 7; i < 10; i++) {
        NEED(publish_number(client, "in.callback", i) == FASTMQ_OK);
    }
    if (delivery == FASTMQ_DELIVERY_DISPATCH) {
        NEED(fastmq_dispatch(client, 10, SECOND, &ready) == FASTMQ_OK);
    }
    NEED(gate_wait(&scene->calls, 1));
    snprintf(line, sizeof line, "%s: unsubscribe inside the callback; it is the last one", name);
    CHECK(gate_count(&scene->calls) == 1 && scene->number == 7, line);
    snprintf(line, sizeof line, "%s: the subscription is gone", name);
    CHECK_NUMBER(client_figures(client).subscriptions, 0, line);

    fastmq_subscription *last = subscribe_call(client, "in.callback", delivery, close_inside,
                                               scene);
    fastmq_status status = publish_number(client, "in.callback", 11);
    snprintf(line, sizeof line, "%s: the publish that leads to a close has a status", name);
    CHECK(status == FASTMQ_OK || status == FASTMQ_CLOSED, line);
    if (delivery == FASTMQ_DELIVERY_DISPATCH) {
        status = fastmq_dispatch(client, 10, SECOND, &ready);
        CHECK(status == FASTMQ_OK || status == FASTMQ_CLOSED, "so has that dispatch");
    }
    NEED(gate_wait(&scene->calls, 2));
    snprintf(line, sizeof line, "%s: close inside the callback returns, the message stays", name);
    CHECK_NUMBER(scene->number, 11, line);
    snprintf(line, sizeof line, "%s: after it the client is closed", name);
    CHECK(scene->status == FASTMQ_MISUSE || scene->status == FASTMQ_CLOSED, line);
    fastmq_unsubscribe(last);
    fastmq_close(client);
}

static void block(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    note(message, context);
    gate_wait(&scene->release, 1);
}

static void a_callback_that_blocks(void)
{
    enum { SENT = 1000 };
    fastmq_client *client = open_small_client(2);
    struct scene blocked = new_scene(client), other = new_scene(client);
    fastmq_subscription *a = subscribe_call(client, "blocks", FASTMQ_DELIVERY_THREAD, block,
                                            &blocked);
    fastmq_subscription *b = subscribe_call(client, "goes.on", FASTMQ_DELIVERY_THREAD, note,
                                            &other);
    fastmq_subscription *c = subscribe(client, "goes.on");
    NEED(publish_number(client, "blocks", 1) == FASTMQ_OK && gate_wait(&blocked.calls, 1));
    uint32_t received = 0;
    for (uint32_t i = 0; i < SENT; i++) {
        fastmq_outgoing message = outgoing("goes.on", bytes(&i, sizeof i));
        NEED(fastmq_publish_wait(client, &message, PATIENCE) == FASTMQ_OK);
        received += (uint32_t)take_all(fastmq_subscription_queue(c));
    }
    CHECK_NUMBER(received, SENT, "beside a blocked callback another queue goes on");
    CHECK(gate_wait(&other.calls, SENT), "and so does another callback, on the second thread");
    fastmq_status status = FASTMQ_OK;
    for (uint32_t i = 0; i < 1000 && status == FASTMQ_OK; i++) {
        status = publish_wide(client, "blocks", i);
    }
    CHECK_STATUS(status, FASTMQ_AGAIN, "the blocked one's queue fills up and says AGAIN");
    CHECK_NUMBER(gate_count(&blocked.calls), 1, "its callbacks do not overlap");
    gate_add(&blocked.release, 1);
    CHECK(gate_wait(&blocked.calls, 2), "once released it goes on");
    fastmq_unsubscribe(a);
    fastmq_unsubscribe(b);
    fastmq_unsubscribe(c);
    fastmq_close(client);
}

/* Publishes to its own queue until that is full, then waits for room that only it could make. */
static void flood_inside(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    uint8_t payload[200] = {0};
    (void)message;
    if (gate_count(&scene->calls) == 0) {
        fastmq_outgoing more = outgoing("own.queue", bytes(payload, sizeof payload));
        scene->status = FASTMQ_OK;
        for (int i = 0; i < 1000 && scene->status == FASTMQ_OK; i++) {
            scene->status = fastmq_publish_wait(scene->client, &more, PATIENCE);
        }
    }
    gate_add(&scene->calls, 1);
}

static void publish_wait_inside(void)
{
    static const fastmq_delivery deliveries[] = {FASTMQ_DELIVERY_THREAD, FASTMQ_DELIVERY_DISPATCH};
    for (size_t i = 0; i < 2; i++) {
        uint32_t ready = 0;
        fastmq_client *client = open_small_client(1);
        struct scene scene = new_scene(client);
        fastmq_subscription *s = subscribe_call(client, "own.queue", deliveries[i], flood_inside,
                                                &scene);
        NEED(publish_number(client, "own.queue", 1) == FASTMQ_OK);
        if (deliveries[i] == FASTMQ_DELIVERY_DISPATCH) {
            NEED(fastmq_dispatch(client, 1, FASTMQ_FOREVER, &ready) == FASTMQ_OK);
        }
        NEED(gate_wait(&scene.calls, 1));
        CHECK_STATUS(scene.status, FASTMQ_MISUSE,
                     "publish_wait inside a handler of the full queue is MISUSE, not a deadlock");
        fastmq_unsubscribe(s);
        fastmq_close(client);
    }
}

static void nest(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    scene->depth++;
    scene->depth_max = scene->depth > scene->depth_max ? scene->depth : scene->depth_max;
    fastmq_status status = publish_number(scene->client, "nest", number_of(message) + 1);
    scene->status = status != FASTMQ_OK ? status : scene->status; /* the innermost one's */
    scene->depth--;
    gate_add(&scene->calls, 1);
}

static void nesting_is_bounded(void)
{
    fastmq_client *client = open_client();
    struct scene scene = new_scene(client);
    fastmq_subscription *s = subscribe_call(client, "nest", FASTMQ_DELIVERY_INLINE, nest, &scene);
    CHECK_STATUS(publish_number(client, "nest", 0), FASTMQ_OK, "the outermost publish succeeds");
    CHECK_NUMBER(scene.depth_max, 16, "inline handlers nest 16 deep");
    CHECK_STATUS(scene.status, FASTMQ_MISUSE, "the publish that would go deeper is MISUSE");
    CHECK_NUMBER(gate_count(&scene.calls), 16, "each level ran once");
    CHECK_STATUS(publish_number(client, "nest", 0), FASTMQ_OK, "and the next one starts anew");
    fastmq_unsubscribe(s);
    fastmq_close(client);
}

/* Takes its time after the main thread has begun to unsubscribe. */
static void finish_late(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    struct timespec start, now;
    (void)message;
    gate_add(&scene->calls, 1);
    gate_wait(&scene->release, 1);
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 20);
    atomic_store(&scene->is_dead, 1);
}

static void *publish_once(void *context)
{
    struct scene *scene = context;
    scene->status = publish_number(scene->client, "late", 1);
    return NULL;
}

static void unsubscribe_waits(fastmq_delivery delivery, const char *name)
{
    fastmq_client *client = open_client();
    struct scene scene = new_scene(client);
    fastmq_subscription *s = subscribe_call(client, "late", delivery, finish_late, &scene);
    pthread_t thread = start_thread(publish_once, &scene);
    NEED(gate_wait(&scene.calls, 1));
    gate_add(&scene.release, 1);
    fastmq_unsubscribe(s);
    CHECK(atomic_load(&scene.is_dead), name);
    pthread_join(thread, NULL);
    fastmq_close(client);
}

static void count_unless_dead(const fastmq_message *message, void *context)
{
    struct scene *scene = context;
    (void)message;
    if (atomic_load(&scene->is_dead)) {
        atomic_fetch_add(&scene->violations, 1);
    }
    gate_add(&scene->calls, 1);
    if (atomic_load(&scene->is_dead)) {
        atomic_fetch_add(&scene->violations, 1);
    }
}

static void *publish_until_released(void *context)
{
    struct scene *scene = context;
    /* Bounded by the gate: the main thread releases it when it has seen what it wants. */
    for (uint32_t i = 0; gate_count(&scene->release) == 0; i++) {
        fastmq_outgoing message = outgoing("ends", bytes(&i, sizeof i));
        fastmq_publish_wait(scene->client, &message, SECOND);
    }
    for (uint32_t i = 0; i < 10000; i++) {
        publish_number(scene->client, "ends", i);
    }
    return NULL;
}

static void after_unsubscribe_no_callback(fastmq_delivery delivery, const char *name)
{
    fastmq_client *client = open_client();
    struct scene scene = new_scene(client);
    fastmq_subscription *s = subscribe_call(client, "ends", delivery, count_unless_dead, &scene);
    pthread_t thread = start_thread(publish_until_released, &scene);
    NEED(gate_wait(&scene.calls, 100));
    fastmq_unsubscribe(s);
    atomic_store(&scene.is_dead, 1);
    gate_add(&scene.release, 1);
    pthread_join(thread, NULL);
    CHECK_NUMBER(atomic_load(&scene.violations), 0, name);
    fastmq_close(client);
}

/* What a destructor of the thread's own data publishes, after the library has given up its part. */
struct last_words {
    pthread_key_t key;
    fastmq_client *client;
    fastmq_publisher *publisher;
    fastmq_status by_handle, by_subject;
    char sentence[200];
};

static void say_last_words(void *context)
{
    struct last_words *own = context;
    own->by_handle = fastmq_publisher_publish(own->publisher, text("bye!"));
    own->by_subject = fastmq_publish(own->client, text("end"), text("bye!"));
    snprintf(own->sentence, sizeof own->sentence, "%s", fastmq_last_error());
}

static void *live_and_end(void *context)
{
    struct last_words *own = context;
    NEED(pthread_setspecific(own->key, own) == 0);
    NEED(publish_number(own->client, "end", 1) == FASTMQ_OK);
    NEED(fastmq_publisher_publish(own->publisher, text("live")) == FASTMQ_OK);
    return NULL;
}

/* Whoever uses a thread's data after its end leaves some bytes behind (its second end never comes),
 * which a leak check reports: valgrind, found by what it preloads, or AddressSanitizer. */
static bool has_leak_check(void)
{
#ifdef __SANITIZE_ADDRESS__
    return true;
#else
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
#endif
}

static void the_end_of_a_thread(void)
{
    if (has_leak_check()) return;
    fastmq_client *client = open_client();
    struct scene scene = new_scene(client);
    fastmq_subscription *s = subscribe_call(client, "end", FASTMQ_DELIVERY_INLINE, note, &scene);
    struct last_words words = {.client = client, .publisher = open_publisher(client, "end")};
    NEED(pthread_key_create(&words.key, say_last_words) == 0);
    pthread_join(start_thread(live_and_end, &words), NULL);
    CHECK_STATUS(words.by_handle, FASTMQ_OK, "a destructor of a thread publishes by handle");
    CHECK_NUMBER(gate_count(&scene.calls), 3, "and its INLINE callback runs");
    CHECK_STATUS(words.by_subject, FASTMQ_MISUSE, "by subject it is too late");
    CHECK(strstr(words.sentence, "thread is ending") != NULL, "and the sentence says why");
    NEED(pthread_key_delete(words.key) == 0);
    fastmq_publisher_close(words.publisher);
    fastmq_unsubscribe(s);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    threads_of_the_deliveries();
    inside(FASTMQ_DELIVERY_INLINE, "INLINE");
    inside(FASTMQ_DELIVERY_DISPATCH, "DISPATCH");
    inside(FASTMQ_DELIVERY_THREAD, "THREAD");
    a_callback_that_blocks();
    publish_wait_inside();
    nesting_is_bounded();
    the_end_of_a_thread();
    unsubscribe_waits(FASTMQ_DELIVERY_THREAD, "THREAD: unsubscribe waits for a running callback");
    unsubscribe_waits(FASTMQ_DELIVERY_INLINE, "INLINE: unsubscribe waits for a running callback");
    after_unsubscribe_no_callback(FASTMQ_DELIVERY_THREAD,
                                  "THREAD: after unsubscribe has returned no callback runs");
    after_unsubscribe_no_callback(FASTMQ_DELIVERY_INLINE,
                                  "INLINE: after unsubscribe has returned no callback runs");
    return check_end();
}
