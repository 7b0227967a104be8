/* Two copies of the library in one process: a program that links it, and a plugin that brought its
 * own. Each has brokers, threads and handles of its own; they meet as two processes would. */
#define _GNU_SOURCE
#include "served.h"

#include <dlfcn.h>
#include <fcntl.h>

/* What the other copy has, by the names of the header. */
struct copy {
    void *library;
    __typeof__(&fastmq_open) open;
    __typeof__(&fastmq_connect) connect;
    __typeof__(&fastmq_close) close;
    __typeof__(&fastmq_publish) publish;
    __typeof__(&fastmq_subscribe) subscribe;
    __typeof__(&fastmq_subscription_queue) subscription_queue;
    __typeof__(&fastmq_receive) receive;
    __typeof__(&fastmq_batch_messages) batch_messages;
    __typeof__(&fastmq_batch_free) batch_free;
    __typeof__(&fastmq_request_into) request_into;
    __typeof__(&fastmq_last_error) last_error;
};

/* A file of its own with the same bytes: the dynamic linker loads it beside the first. */
static void copy_library(const char *from, const char *to)
{
    static char part[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    NEED(in != NULL && out != NULL);
    for (size_t size; (size = fread(part, 1, sizeof part, in)) > 0;) {
        NEED(fwrite(part, 1, size, out) == size);
    }
    NEED(fclose(in) == 0 && fclose(out) == 0);
}

static void load(struct copy *copy, const char *path)
{
    copy->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (copy->library == NULL) {
        printf("# %s\n", dlerror());
    }
    NEED(copy->library != NULL);
#define FIND(name) \
    do { \
        *(void **)&copy->name = dlsym(copy->library, "fastmq_" #name); \
        NEED(copy->name != NULL); \
    } while (0)
    FIND(open);
    FIND(connect);
    FIND(close);
    FIND(publish);
    FIND(subscribe);
    FIND(subscription_queue);
    FIND(receive);
    FIND(batch_messages);
    FIND(batch_free);
    FIND(request_into);
    FIND(last_error);
}

/* Brokers of both copies, used in turn by one thread. */
static void each_has_its_own(const struct copy *other)
{
    fastmq_client *ours = open_client(), *theirs = NULL;
    fastmq_subscription *our_all = NULL, *their_all = NULL;
    fastmq_batch *our_batch = NULL, *their_batch = NULL;
    size_t count = 0;
    CHECK_STATUS(other->open(NULL, &theirs), FASTMQ_OK, "the other copy opens a broker");
    NEED(fastmq_subscribe(ours, text(">"), NULL, &our_all) == FASTMQ_OK);
    NEED(other->subscribe(theirs, text(">"), NULL, &their_all) == FASTMQ_OK);
    NEED(fastmq_publish(ours, text("a"), text("ours")) == FASTMQ_OK);
    NEED(other->publish(theirs, text("a"), text("theirs")) == FASTMQ_OK);
    NEED(fastmq_receive(fastmq_subscription_queue(our_all), 0, PATIENCE, &our_batch) == FASTMQ_OK);
    NEED(other->receive(other->subscription_queue(their_all), 0, PATIENCE, &their_batch)
         == FASTMQ_OK);
    const fastmq_message *message = fastmq_batch_messages(our_batch, &count);
    CHECK(count == 1 && same(message->payload, "ours"), "this copy's broker has its own message");
    message = other->batch_messages(their_batch, &count);
    CHECK(count == 1 && same(message->payload, "theirs"), "and the other's its own");

    CHECK(other->publish(theirs, text(""), text("")) == FASTMQ_INVALID
              && other->last_error()[0] != '\0' && fastmq_last_error() != other->last_error(),
          "each keeps a last error of its own");
    fastmq_batch_free(our_batch);
    other->batch_free(their_batch);
    other->close(theirs);
    CHECK_STATUS(fastmq_publish(ours, text("a"), text("again")), FASTMQ_OK,
                 "closing one leaves the other alone");
    fastmq_close(ours);
}

static void answer(const fastmq_message *question, void *context)
{
    fastmq_reply(context, question->token, question->payload);
}

/* The other copy's client at a server of this one, over every transport. */
static void they_meet(const struct copy *other)
{
    struct served served;
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    fastmq_subscription *echo = NULL;
    serve(&served, NULL);
    options.delivery = FASTMQ_DELIVERY_THREAD;
    options.on_message = answer;
    options.context = served.broker;
    NEED(fastmq_subscribe(served.broker, text("echo"), &options, &echo) == FASTMQ_OK);
    for (size_t i = 0; i < 3; i++) {
        fastmq_client *theirs = NULL;
        char reply[16], name[80];
        size_t size = 0;
        NEED(other->connect(served.url[i], NULL, &theirs) == FASTMQ_OK);
        fastmq_status said = other->request_into(theirs, text("echo"), text("hello"), PATIENCE,
                                                 reply, sizeof reply, &size);
        snprintf(name, sizeof name, "one copy asks the other over %.*s",
                 (int)strcspn(served.url[i], ":"), served.url[i]);
        CHECK(said == FASTMQ_OK && size == 5 && memcmp(reply, "hello", 5) == 0, name);
        other->close(theirs);
    }
    fastmq_unsubscribe(echo);
    end(&served);
}

int main(void)
{
    char path[64];
    struct copy other;
    Dl_info about;
    check_begin();
    NEED(dladdr(*(void **)&(__typeof__(&fastmq_open)){fastmq_open}, &about) != 0);
    snprintf(path, sizeof path, "/tmp/fastmq-copy-%d.so", (int)getpid());
    copy_library(about.dli_fname, path);
    load(&other, path);
    unlink(path);
    CHECK(other.open != fastmq_open, "they are two libraries");
    each_has_its_own(&other);
    they_meet(&other);
    each_has_its_own(&other);
    return check_end();
}
