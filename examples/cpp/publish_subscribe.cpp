// Publish and subscribe: patterns, a shared queue, a publisher handle, headers and a callback.
//
// Everything happens on one thread: the messages wait in a queue between publish and receive, and
// the callback runs inside publish.
#include <fastmq.hpp>

#include <chrono>
#include <cstdint>
#include <iomanip>
#include <iostream>

using namespace std::chrono_literals;

// What the two subscriptions of the house are for.
constexpr std::uint64_t tag_kitchen = 1, tag_alarm = 2;

struct seen {
    int for_kitchen = 0, for_alarm = 0, with_unit = 0, in_house = 0;
};

// Calls throw fastmq::error when they fail; handles close themselves.
static seen run()
{
    seen counts;
    auto mq = fastmq::open();

    // One queue for two subscriptions, so that one loop reads both. The tag comes back with each
    // message and says which of the two it is for: no subject needs to be looked at again.
    auto queue = mq.open_queue();
    fastmq::subscribe_options into;
    into.queue = queue;
    into.tag = tag_kitchen;
    auto from_kitchen = mq.subscribe("house.kitchen.*", into);
    into.tag = tag_alarm;
    auto alarms = mq.subscribe("house.*.smoke", into);

    // A callback instead of a queue: any callable, here on the publishing thread.
    auto counter = mq.subscribe("house.>", fastmq::delivery::inline_,
                                [&](fastmq::message) { counts.in_house++; });

    // By subject: right for subjects that change from message to message.
    mq.publish("house.kitchen.light", "on");
    mq.publish("house.cellar.light", "nobody listens");

    // By handle: the subject is checked and routed once, each publish is cheaper.
    auto smoke = mq.open_publisher("house.kitchen.smoke");
    smoke.publish("none");

    // A message with more to it than a payload.
    fastmq::headers headers;
    headers.add("unit", "celsius");
    mq.publish(fastmq::outgoing("house.kitchen.temperature", "21.5").headers(headers).ttl(10s));

    // Receive in batches, in place: nothing is copied; the views live as long as the batch. A
    // time-out of zero means "what is there now". try_receive gives a result, which is false when
    // there is nothing (more): no exception, and no cost over C.
    while (auto batch = queue.try_receive(0s)) {
        for (const fastmq::message m : *batch) {
            const auto unit = m.headers().get("unit");
            const char *whose = m.tag() == tag_alarm ? "alarm" : "kitchen";
            std::cout << std::left << std::setw(8) << whose << ' ' << m.subject() << ": "
                      << m.text();
            if (unit) {
                std::cout << ' ' << unit->text();
            }
            std::cout << '\n';
            counts.for_kitchen += m.tag() == tag_kitchen;
            counts.for_alarm += m.tag() == tag_alarm;
            counts.with_unit += unit.has_value();
        }
    }
    std::cout << counts.in_house << " messages in the house\n";
    return counts;
}

int main()
try {
    const seen counts = run();
    // kitchen.smoke matches both patterns, so each of the two subscriptions has it.
    const bool is_right = counts.for_kitchen == 3 && counts.for_alarm == 1
        && counts.with_unit == 1 && counts.in_house == 4;
    return is_right ? 0 : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "publish_subscribe: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
