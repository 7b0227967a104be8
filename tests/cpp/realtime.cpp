// What real-time programs ask for: threads with a name, cores and scheduling; memory that is there
// from the start; one wait over many queues; time stamps.
/* valgrind */
#include "check.hpp"

#include <condition_variable>
#include <string>
#include <thread>

#include <sched.h>
#include <sys/prctl.h>

using fastmq::delivery;
using fastmq::message;

static std::string name_here()
{
    char name[16] = {};
    prctl(PR_GET_NAME, name, 0, 0, 0);
    return name;
}

static void threads()
{
    std::string name;
    fastmq::status too_long{}, denied{};
    std::thread([&] {
        fastmq::thread_options own;
        own.name = "own";
        own.scheduling = fastmq::scheduling::other;
        fastmq::thread_setup(own);
        name = name_here();
        own.name = "1234567890123456";
        too_long = fastmq::try_thread_setup(own);
        own = {};
        own.priority = 1;
        denied = fastmq::try_thread_setup(own);
    }).join();
    CHECK(name == "own", "a thread of one's own gets its name");
    CHECK_SAYS(too_long, invalid, "a name has at most 15 bytes");
    CHECK_SAYS(denied, invalid, "a priority needs fifo or rr");
    CHECK_THROWS(fastmq::thread_setup({{}, 0, fastmq::scheduling::fifo, 100}), invalid,
                 "a priority ends at 99");

    fastmq::options options;
    options.threads.name = "desk";
    auto mq = fastmq::open(options);
    std::mutex mutex;
    std::condition_variable changed;
    auto named = mq.subscribe("a", delivery::thread, [&](message) {
        const std::lock_guard<std::mutex> guard(mutex);
        name = name_here();
        changed.notify_one();
    });
    mq.publish("a", "x");
    std::unique_lock<std::mutex> lock(mutex);
    CHECK(changed.wait_for(lock, patience, [&] { return name == "desk-0"; }),
          "a library thread has the client's name and a number");
    options.threads.name = "twelve bytes";
    CHECK_THROWS(fastmq::open(options), invalid, "which has 11 bytes at most");
}

static void memory()
{
    fastmq::options options;
    options.memory_max = 1 << 20;
    options.memory = fastmq::memory::prefault;
    {
        auto mq = fastmq::open(options);
        auto sink = mq.subscribe("a");
        mq.publish("a", "x");
        CHECK(sink.queue().receive(0s).front().text() == "x", "memory from the start is used");
    }
    options.memory = fastmq::memory::lock | fastmq::memory::prefault;
    const auto locked = fastmq::try_open(options).status();
    CHECK(locked == fastmq::status::ok || locked == fastmq::status::denied,
          "it is locked, or the right is missing");
    options.memory = fastmq::memory::huge_pages;
    const auto huge = fastmq::try_open(options).status();
    CHECK(huge == fastmq::status::ok || huge == fastmq::status::unsupported,
          "it is in huge pages, or there are none");
    options.memory_max = 0;
    CHECK_THROWS(fastmq::open(options), invalid, "how much must be said");
}

static void wait_over_many()
{
    auto mq = fastmq::open();
    auto orders = mq.subscribe("order.>");
    auto prices = mq.subscribe("price.>");
    const fastmq::queue_ref queues[] = {orders.queue(), prices.queue()};
    CHECK_SAYS(fastmq::try_wait_any(queues, 0s).status(), again, "nothing is there");
    CHECK_THROWS(fastmq::wait_any(queues, 1ms), timeout, "nothing comes");
    mq.publish("price.ACME", "12.5");
    CHECK_NUMBER(fastmq::wait_any(queues), 1, "the queue with the message is named");
    CHECK(queues[1].receive().front().text() == "12.5", "and has it");
    CHECK_SAYS(fastmq::try_wait_any({}, 0s).status(), invalid, "no queue is invalid");
}

static void time_stamps()
{
    const auto epoch = std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds>();
    for (const auto from : {fastmq::timestamps::none, fastmq::timestamps::clock,
                            fastmq::timestamps::tsc}) {
        fastmq::options options;
        options.timestamps = from;
        auto mq = fastmq::open(options);
        auto sink = mq.subscribe("a");
        const auto before = std::chrono::system_clock::now() - 1ms;
        mq.publish("a", "x");
        const auto batch = sink.queue().receive(0s);
        const auto after = std::chrono::system_clock::now() + 1ms;
        const auto is_right = [&](auto time) {
            return from == fastmq::timestamps::none ? time == epoch
                                                    : before <= time && time <= after;
        };
        CHECK(is_right(batch.front().timestamp()), "a message has its time, if asked for");
        CHECK(is_right(batch.received()), "and so has a batch");
    }
}

int main()
{
    check_begin();
    threads();
    memory();
    wait_over_many();
    time_stamps();
    return check_end();
}
