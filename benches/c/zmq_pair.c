/* The same work over libzmq, within the process or through the kernel, built only where libzmq is
 * installed.
 *
 * PAIR sockets: one thread on core 1 that sends or asks, one on core 0 that receives or answers.
 * Over ipc and tcp each has a context of its own, as two processes would; its I/O thread is not
 * pinned.
 * Two frames per message would halve its rate, so subject and payload travel in one; there is no
 * routing by subject at all.
 */
#include "bench_measure.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define BURST 64
#define COUNT_PER_STEP 1024
#define PAYLOAD_BYTES 16
#define HIGH_WATER 4096
#define ADDRESS_BYTES 256

struct side {
    void *context, *peer_context, *socket;
    size_t message_size;
    uint64_t outstanding, sent, answered, wrong;
    atomic_uint_fast64_t received; /* by the other thread */
    atomic_bool stop;
};

/* Where the first socket is bound, and the second connects to. */
static char address[ADDRESS_BYTES] = "inproc://bench";

static void *open_socket(void *context, bool binds) {
    int high_water = HIGH_WATER, linger = 0, receive_timeout_ms = 20;
    void *socket = zmq_socket(context, ZMQ_PAIR);
    if (socket == NULL) bench_fail("zmq-pair: %s", zmq_strerror(errno));
    zmq_setsockopt(socket, ZMQ_SNDHWM, &high_water, sizeof high_water);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &high_water, sizeof high_water);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &receive_timeout_ms, sizeof receive_timeout_ms);
    if ((binds ? zmq_bind(socket, address) : zmq_connect(socket, address)) != 0)
        bench_fail("zmq-pair: %s: %s", address, zmq_strerror(errno));
    size_t size = sizeof address;
    if (binds) zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &size);
    return socket;
}

static void send_message(void *socket, const uint8_t *bytes, size_t size) {
    if (zmq_send(socket, bytes, size, 0) < 0) bench_fail("zmq-pair: %s", zmq_strerror(errno));
}

/* Receives one message into `message`; false when none came in time. */
static bool receive_message(void *socket, zmq_msg_t *message, int flags) {
    if (zmq_msg_recv(message, socket, flags) >= 0) return true;
    if (errno != EAGAIN && errno != EINTR) bench_fail("zmq-pair: %s", zmq_strerror(errno));
    return false;
}

static void *receive(void *argument) {
    struct side *side = argument;
    uint64_t expected = 0;
    bench_pin(0);
    void *socket = open_socket(side->peer_context, false);
    zmq_msg_t message;
    zmq_msg_init(&message);
    while (!atomic_load_explicit(&side->stop, memory_order_relaxed)) {
        if (!receive_message(socket, &message, 0)) continue;
        side->wrong += !bench_is_stamped(zmq_msg_data(&message), zmq_msg_size(&message),
                                         side->message_size, expected++);
        atomic_store_explicit(&side->received, expected, memory_order_release);
    }
    zmq_msg_close(&message);
    zmq_close(socket);
    return NULL;
}

static void *respond(void *argument) {
    struct side *side = argument;
    bench_pin(0);
    void *socket = open_socket(side->peer_context, false);
    zmq_msg_t message;
    zmq_msg_init(&message);
    while (!atomic_load_explicit(&side->stop, memory_order_relaxed))
        if (receive_message(socket, &message, 0))
            send_message(socket, zmq_msg_data(&message), zmq_msg_size(&message));
    zmq_msg_close(&message);
    zmq_close(socket);
    return NULL;
}

static uint64_t send_step(void *argument) {
    struct side *side = argument;
    static uint8_t bytes[1 << 20];
    uint64_t count = side->message_size > 4096 ? 16 : COUNT_PER_STEP;
    for (uint64_t index = 0; index < count; index++) {
        bench_stamp(bytes, side->message_size, side->sent++);
        send_message(side->socket, bytes, side->message_size);
    }
    return count;
}

static void send_settle(void *argument) {
    struct side *side = argument;
    while (atomic_load_explicit(&side->received, memory_order_acquire) < side->sent) continue;
}

static void collect(struct side *side) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    int flags = 0; /* Waits for the first only. */
    for (int index = 0; index < BURST && side->answered < side->sent; index++) {
        if (!receive_message(side->socket, &message, flags)) break;
        side->wrong += !bench_is_stamped(zmq_msg_data(&message), zmq_msg_size(&message),
                                         side->message_size, side->answered++);
        flags = ZMQ_DONTWAIT;
    }
    zmq_msg_close(&message);
}

static uint64_t ask_step(void *argument) {
    struct side *side = argument;
    uint8_t bytes[PAYLOAD_BYTES + BENCH_SUBJECT_BYTES];
    uint64_t before = side->answered;
    while (side->answered - before < COUNT_PER_STEP) {
        while (side->sent - side->answered < side->outstanding) {
            bench_stamp(bytes, side->message_size, side->sent++);
            send_message(side->socket, bytes, side->message_size);
        }
        collect(side);
    }
    return side->answered - before;
}

static void ask_settle(void *argument) {
    struct side *side = argument;
    while (side->answered < side->sent) collect(side);
}

int main(int argc, char **argv) {
    struct bench_plan plan;
    int first = bench_plan_read(argc, argv, &plan);
    if (argc - first != 2 && argc - first != 3)
        bench_fail("usage: zmq-pair [--ms N] [--warm-up-ms N] "
                   "(one-way BYTES | request-reply OUTSTANDING) [ipc | tcp]");
    const char *name = argv[first], *param = argv[first + 1];
    const char *transport = argc - first == 3 ? argv[first + 2] : "inproc";
    bool is_inproc = strcmp(transport, "inproc") == 0, is_ipc = strcmp(transport, "ipc") == 0;
    if (!is_inproc && !is_ipc && strcmp(transport, "tcp") != 0)
        bench_fail("%s is neither ipc nor tcp", transport);
    if (!is_inproc) strcpy(address, is_ipc ? "ipc://*" : "tcp://127.0.0.1:*");
    bool is_one_way = strcmp(name, "one-way") == 0;
    if (!is_one_way && strcmp(name, "request-reply") != 0) bench_fail("%s is not a case", name);
    static struct side side;
    uint64_t number = bench_number(param, NULL);
    if (is_one_way && (number < PAYLOAD_BYTES || number > 1 << 19))
        bench_fail("%s bytes; from %d to %d", param, PAYLOAD_BYTES, 1 << 19);
    if (!is_one_way && number > HIGH_WATER / 2)
        bench_fail("%s outstanding; at most %d", param, HIGH_WATER / 2);
    side.outstanding = number;
    side.message_size = (is_one_way ? number : PAYLOAD_BYTES) + BENCH_SUBJECT_BYTES;
    side.context = zmq_ctx_new();
    side.peer_context = is_inproc ? side.context : zmq_ctx_new();
    side.socket = open_socket(side.context, true);
    pthread_t thread;
    if (pthread_create(&thread, NULL, is_one_way ? receive : respond, &side) != 0)
        bench_fail("no second thread");
    bench_pin(1);
    double rate = is_one_way ? bench_rate(&plan, send_step, send_settle, &side)
                             : bench_rate(&plan, ask_step, ask_settle, &side);
    atomic_store(&side.stop, true);
    pthread_join(thread, NULL);
    zmq_close(side.socket);
    zmq_ctx_term(side.context);
    if (!is_inproc) zmq_ctx_term(side.peer_context);
    if (side.wrong != 0) bench_fail("zmq-pair: %llu wrong", (unsigned long long)side.wrong);
    bench_print("zmq", name, param, is_one_way ? "M msg/s" : "M pairs/s", rate);
    return 0;
}
