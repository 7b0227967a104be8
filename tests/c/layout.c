/* The layout of every struct that crosses the border: docs/formats.md §3 and §5.
 *
 * Nearly all of this is decided while compiling; the program only says that it was.
 */
/* valgrind */
#include "check.h"

#define SIZE(type, expected) _Static_assert(sizeof(type) == (expected), #type " has moved")
#define AT(type, field, expected) \
    _Static_assert(offsetof(type, field) == (expected), #type "." #field " has moved")

/* The offsets below are those of a 64-bit machine, the only kind there is a promise for. */
_Static_assert(sizeof(void *) == 8 && sizeof(size_t) == 8, "64-bit only");

SIZE(fastmq_bytes, 16);
AT(fastmq_bytes, data, 0);
AT(fastmq_bytes, size, 8);

SIZE(fastmq_message, 144);
_Static_assert(_Alignof(fastmq_message) == 8, "fastmq_message is aligned to 8");
AT(fastmq_message, subject, 0);
AT(fastmq_message, payload, 16);
AT(fastmq_message, reply_to, 32);
AT(fastmq_message, headers, 48);
AT(fastmq_message, key, 64);
AT(fastmq_message, sequence, 80);
AT(fastmq_message, timestamp_ns, 88);
AT(fastmq_message, token, 96);
AT(fastmq_message, delivery_count, 104);
AT(fastmq_message, lost_before, 108);
AT(fastmq_message, status, 112);
AT(fastmq_message, subscription_id, 116);
AT(fastmq_message, flags, 120);
AT(fastmq_message, reserved0, 124);
AT(fastmq_message, tag, 128);
AT(fastmq_message, publisher, 136);
_Static_assert(FASTMQ_MESSAGE_REDELIVERED == 1 && FASTMQ_MESSAGE_MORE == 2
                   && FASTMQ_MESSAGE_END == 4 && FASTMQ_MESSAGE_REQUEST == 8,
               "message flags are frozen");

/* Enums are 32 bits wide wherever they appear. */
SIZE(fastmq_status, 4);
SIZE(fastmq_policy, 4);
SIZE(fastmq_wait, 4);
SIZE(fastmq_delivery, 4);

/* Structs that the caller fills: `struct_size` first, no padding inside or at the end. */
SIZE(fastmq_outgoing, 104);
AT(fastmq_outgoing, struct_size, 0);
AT(fastmq_outgoing, flags, 4);
AT(fastmq_outgoing, subject, 8);
AT(fastmq_outgoing, payload, 24);
AT(fastmq_outgoing, reply_to, 40);
AT(fastmq_outgoing, key, 56);
AT(fastmq_outgoing, headers, 72);
AT(fastmq_outgoing, token, 80);
AT(fastmq_outgoing, ttl_ns, 88);
AT(fastmq_outgoing, priority, 96);
AT(fastmq_outgoing, reserved, 100);

SIZE(fastmq_options, 64);
AT(fastmq_options, struct_size, 0);
AT(fastmq_options, flags, 4);
AT(fastmq_options, memory_max, 8);
AT(fastmq_options, queue_capacity, 16);
AT(fastmq_options, payload_max, 24);
AT(fastmq_options, wait, 32);
AT(fastmq_options, threads_max, 36);
AT(fastmq_options, close_timeout_ns, 40);
AT(fastmq_options, threads, 48);
AT(fastmq_options, timestamps, 56);
AT(fastmq_options, memory, 60);

SIZE(fastmq_thread_options, 40);
AT(fastmq_thread_options, struct_size, 0);
AT(fastmq_thread_options, scheduling, 4);
AT(fastmq_thread_options, name, 8);
AT(fastmq_thread_options, cores, 24);
AT(fastmq_thread_options, priority, 32);
AT(fastmq_thread_options, reserved, 36);

SIZE(fastmq_queue_options, 24);
AT(fastmq_queue_options, struct_size, 0);
AT(fastmq_queue_options, policy, 4);
AT(fastmq_queue_options, capacity, 8);
AT(fastmq_queue_options, wait, 16);
AT(fastmq_queue_options, reserved, 20);

SIZE(fastmq_subscribe_options, 72);
AT(fastmq_subscribe_options, struct_size, 0);
AT(fastmq_subscribe_options, delivery, 4);
AT(fastmq_subscribe_options, group, 8);
AT(fastmq_subscribe_options, queue, 24);
AT(fastmq_subscribe_options, tag, 32);
AT(fastmq_subscribe_options, on_message, 40);
AT(fastmq_subscribe_options, context, 48);
AT(fastmq_subscribe_options, policy, 56);
AT(fastmq_subscribe_options, flags, 60);
AT(fastmq_subscribe_options, group_mode, 64);
AT(fastmq_subscribe_options, weight, 68);

SIZE(fastmq_many_options, 24);
AT(fastmq_many_options, struct_size, 0);
AT(fastmq_many_options, answers_max, 4);
AT(fastmq_many_options, credit, 8);
AT(fastmq_many_options, credit_mode, 12);
AT(fastmq_many_options, gap_ns, 16);
SIZE(fastmq_requester_options, 32);
AT(fastmq_requester_options, struct_size, 0);
AT(fastmq_requester_options, in_flight_max, 4);
AT(fastmq_requester_options, subject, 8);
AT(fastmq_requester_options, wait, 24);
AT(fastmq_requester_options, reserved, 28);

SIZE(fastmq_connect_options, 104);
AT(fastmq_connect_options, struct_size, 0);
AT(fastmq_connect_options, flags, 4);
AT(fastmq_connect_options, name, 8);
AT(fastmq_connect_options, token, 24);
AT(fastmq_connect_options, connect_timeout_ns, 40);
AT(fastmq_connect_options, operation_timeout_ns, 48);
AT(fastmq_connect_options, store_max, 56);
AT(fastmq_connect_options, backoff_min_ns, 64);
AT(fastmq_connect_options, backoff_max_ns, 72);
AT(fastmq_connect_options, on_event, 80);
AT(fastmq_connect_options, context, 88);
AT(fastmq_connect_options, client, 96);

SIZE(fastmq_listen_options, 96);
AT(fastmq_listen_options, struct_size, 0);
AT(fastmq_listen_options, flags, 4);
AT(fastmq_listen_options, token, 8);
AT(fastmq_listen_options, name, 24);
AT(fastmq_listen_options, connections_max, 40);
AT(fastmq_listen_options, subscriptions_max, 44);
AT(fastmq_listen_options, wait, 48);
AT(fastmq_listen_options, shards, 52);
AT(fastmq_listen_options, thread, 56);
AT(fastmq_listen_options, sockets, 64);
AT(fastmq_listen_options, sockets_count, 72);
AT(fastmq_listen_options, servers, 80);

/* A view, as fastmq_message. */
SIZE(fastmq_event, 88);
AT(fastmq_event, kind, 0);
AT(fastmq_event, flags, 4);
AT(fastmq_event, status, 8);
AT(fastmq_event, subscription_id, 12);
AT(fastmq_event, count, 16);
AT(fastmq_event, server, 24);
AT(fastmq_event, subject, 40);
AT(fastmq_event, detail, 56);
AT(fastmq_event, reserved, 72);

/* Structs that the library fills. */
SIZE(fastmq_client_statistics, 144);
AT(fastmq_client_statistics, struct_size, 0);
AT(fastmq_client_statistics, threads, 4);
AT(fastmq_client_statistics, published, 8);
AT(fastmq_client_statistics, wakes, 128);
AT(fastmq_client_statistics, last_values, 136);

SIZE(fastmq_queue_statistics, 96);
AT(fastmq_queue_statistics, struct_size, 0);
AT(fastmq_queue_statistics, lanes, 4);
AT(fastmq_queue_statistics, published, 8);
AT(fastmq_queue_statistics, wakes, 80);
AT(fastmq_queue_statistics, replaced, 88);

SIZE(fastmq_subscription_statistics, 24);
AT(fastmq_subscription_statistics, struct_size, 0);
AT(fastmq_subscription_statistics, id, 4);
AT(fastmq_subscription_statistics, delivered, 8);
AT(fastmq_subscription_statistics, dropped, 16);

int main(void)
{
    check_begin();
    CHECK(1, "every struct has the size and the offsets that docs/formats.md freezes");
    CHECK(FASTMQ_FOREVER == UINT64_MAX, "FASTMQ_FOREVER is the largest 64-bit number");
    CHECK(fastmq_abi() == FASTMQ_ABI, "the library has the ABI of its header");
    CHECK(fastmq_version()[0] >= '0' && fastmq_version()[0] <= '9', "the version is a number");
    return check_end();
}
