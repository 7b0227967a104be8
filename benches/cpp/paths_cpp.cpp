// The paths in C++, with the forms that throw: what they cost beyond C is what is measured.
#include "paths.h"

#include <fastmq.hpp>

#include <array>
#include <cstring>
#include <memory>

namespace {

struct state {
    fastmq::client client = fastmq::open();
    std::uint64_t sum = 0; // What callbacks and readers have seen, so that they must look.
    fastmq::subscription subscription;
    fastmq::queue_ref queue;
    fastmq::publisher publisher = client.open_publisher(PATH_SUBJECT);
    fastmq::requester requester = client.open_requester(window());

    static fastmq::requester_options window()
    {
        fastmq::requester_options options;
        options.subject = PATH_SUBJECT;
        return options;
    }
};

template <fastmq::delivery How> void *open_counting()
{
    auto *made = new state;
    made->subscription = made->client.subscribe(PATH_SUBJECT, How, [made](fastmq::message m) {
        made->sum += m.payload().size() + m.tag();
    });
    return made;
}

void *open_answering()
{
    auto *made = new state;
    made->subscription = made->client.subscribe(PATH_SUBJECT, fastmq::delivery::inline_,
                                                [made](fastmq::message m) {
        made->client.reply(m.token(), m.payload());
    });
    return made;
}

// A callback whose captures have a destructor: the only kind that costs something for a call, as
// it must outlive an end from inside. What it does is what C does.
void *open_owning()
{
    auto *made = new state;
    const auto owned = std::make_shared<int>(0);
    made->subscription = made->client.subscribe(PATH_SUBJECT, fastmq::delivery::inline_,
                                                [made, owned](fastmq::message m) {
        made->client.reply(m.token(), m.payload());
    });
    return made;
}

template <fastmq::policy Policy> void *open_queue()
{
    auto *made = new state;
    fastmq::subscribe_options options;
    options.policy = Policy;
    made->subscription = made->client.subscribe(PATH_SUBJECT, options);
    made->queue = made->subscription.queue();
    return made;
}

void close_state(void *context) { delete static_cast<state *>(context); }

// Runs `once` for every `step` messages; ends the program where it throws.
template <std::uint64_t Step, void (*Once)(state &)> void run(void *context, std::uint64_t count)
{
    try {
        auto &at = *static_cast<state *>(context);
        for (std::uint64_t i = 0; i < count; i += Step) {
            Once(at);
        }
    } catch (const fastmq::error &failure) {
        path_fail(failure.what());
    }
}

void inline_by_subject(state &at) { at.client.publish(PATH_SUBJECT, PATH_PAYLOAD); }
void inline_by_handle(state &at) { at.publisher.publish(PATH_PAYLOAD); }
void inline_message(state &at) { at.publisher.publish(fastmq::outgoing(PATH_PAYLOAD).key("key")); }

void read_batch(state &at)
{
    for (const fastmq::message m : at.queue.receive(fastmq::duration())) {
        at.sum += m.payload().size() + m.tag();
    }
}

void through_queue(state &at)
{
    for (int j = 0; j < PATH_BATCH; j++) {
        at.publisher.publish(PATH_PAYLOAD);
    }
    read_batch(at);
}

void batch_through_queue(state &at)
{
    static const auto payloads = [] {
        std::array<fastmq::bytes_view, PATH_BATCH> made;
        made.fill(PATH_PAYLOAD);
        return made;
    }();
    if (at.publisher.publish_batch(payloads) != payloads.size()) {
        path_fail("publish_batch");
    }
    read_batch(at);
}

void one_through_queue(state &at)
{
    at.client.publish(PATH_SUBJECT, PATH_PAYLOAD);
    read_batch(at);
}

void any_through_queue(state &at)
{
    at.publisher.publish(PATH_PAYLOAD);
    const fastmq::queue_ref queues[] = {at.queue};
    at.sum += fastmq::wait_any(queues);
    read_batch(at);
}

void claimed(state &at)
{
    constexpr std::string_view payload = PATH_PAYLOAD;
    for (int j = 0; j < PATH_BATCH; j++) {
        auto claim = at.publisher.claim(payload.size());
        std::memcpy(claim.data(), payload.data(), payload.size());
        claim.commit();
    }
    read_batch(at);
}

void update_by_subject(state &at)
{
    for (int j = 0; j < PATH_BATCH; j++) {
        at.client.publish(PATH_SUBJECT, PATH_PAYLOAD);
    }
    read_batch(at);
}

void dispatched(state &at)
{
    for (int j = 0; j < PATH_BATCH; j++) {
        at.publisher.publish(PATH_PAYLOAD);
    }
    at.client.dispatch();
}

void request_by_subject(state &at)
{
    char reply[64];
    at.sum += at.client.request_into(PATH_SUBJECT, PATH_PAYLOAD, fastmq::forever, reply,
                                     sizeof reply);
}

void request_by_handle(state &at)
{
    char reply[64];
    at.sum += at.requester.request_into(PATH_PAYLOAD, fastmq::forever, reply, sizeof reply);
}

void request_batch(state &at)
{
    at.sum += at.client.request(PATH_SUBJECT, PATH_PAYLOAD, fastmq::forever)
                  .front().payload().size();
}

void requests_in_flight(state &at)
{
    for (std::uint64_t j = 0; j < PATH_BATCH; j++) {
        at.requester.submit(PATH_PAYLOAD, j, fastmq::forever);
    }
    for (std::size_t left = PATH_BATCH; left > 0;) {
        const auto batch = at.requester.receive();
        for (const fastmq::message m : batch) {
            if (m.status() != fastmq::status::ok) {
                path_fail("answer");
            }
            at.sum += m.token();
        }
        left -= batch.size();
    }
}

void subscribe_and_end(state &at)
{
    auto subscription = at.client.subscribe("other", fastmq::delivery::inline_,
                                            [&at](fastmq::message m) {
        at.client.reply(m.token(), m.payload());
    });
}

using fastmq::delivery;
using fastmq::policy;

} // namespace

const path paths_cpp[] = {
    {"publish by subject, inline callback", open_counting<delivery::inline_>,
     run<1, inline_by_subject>, close_state},
    {"publish by handle, inline callback", open_counting<delivery::inline_>,
     run<1, inline_by_handle>, close_state},
    {"publish a message with a key, inline callback", open_counting<delivery::inline_>,
     run<1, inline_message>, close_state},
    {"publish by handle, receive 64", open_queue<policy::backpressure>,
     run<PATH_BATCH, through_queue>, close_state},
    {"publish 64 by handle, receive 64", open_queue<policy::backpressure>,
     run<PATH_BATCH, batch_through_queue>, close_state},
    {"publish by subject, receive 1", open_queue<policy::backpressure>,
     run<1, one_through_queue>, close_state},
    {"publish by handle, wait for any, receive 1", open_queue<policy::backpressure>,
     run<1, any_through_queue>, close_state},
    {"claim and commit by handle, receive 64", open_queue<policy::backpressure>,
     run<PATH_BATCH, claimed>, close_state},
    {"update by subject, latest queue, receive 1", open_queue<policy::latest>,
     run<PATH_BATCH, update_by_subject>, close_state},
    {"update by handle, latest queue, receive 1", open_queue<policy::latest>,
     run<PATH_BATCH, through_queue>, close_state},
    {"publish by handle, dispatch 64", open_counting<delivery::dispatch>,
     run<PATH_BATCH, dispatched>, close_state},
    {"request into a buffer by subject, inline", open_answering, run<1, request_by_subject>,
     close_state},
    {"request into a buffer by handle, inline", open_answering, run<1, request_by_handle>,
     close_state},
    {"request by handle, inline callback that owns", open_owning, run<1, request_by_handle>,
     close_state},
    {"request with a batch, inline", open_answering, run<1, request_batch>, close_state},
    {"submit 64, receive the answers, inline", open_answering, run<PATH_BATCH, requests_in_flight>,
     close_state},
    {"subscribe with a callback and end (1 in 64)", open_counting<delivery::inline_>,
     run<PATH_BATCH, subscribe_and_end>, close_state},
    {nullptr, nullptr, nullptr, nullptr},
};
