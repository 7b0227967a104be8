// Work by key: the orders of a customer are handled in order, while workers come and go.
//
// Three workers share the orders of 100 customers. The messages of one key, here the customer, go
// to one worker at a time. A fourth joins in the middle, and one leaves with orders unread: its
// customers go to the others, whose next order of each is the one that comes next.
#include <fastmq.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <limits>
#include <list>
#include <thread>

using namespace std::chrono_literals;

constexpr std::uint32_t customers = 100, orders = 40;

struct order {
    std::uint32_t customer;
    std::uint32_t number; // from 0, of this customer
};

// The next order of each customer. Shared, without a lock: a customer is handled by one worker at
// a time.
using order_book = std::array<std::uint32_t, customers>;

struct worker {
    worker(const fastmq::client &mq, order_book &next, std::uint32_t order_max)
    {
        fastmq::subscribe_options options;
        options.group = "warehouse";
        options.group_mode = fastmq::group_mode::key_shared;
        subscription = mq.subscribe("order.*", options);
        thread = std::thread([this, &next, order_max] { work(next, order_max); });
    }

    void work(order_book &next, std::uint32_t order_max)
    {
        while (handled < order_max) {
            // When the batch ends its orders are handled: the keys that are to move may move.
            const auto batch = subscription.queue().try_receive(fastmq::forever, 32);
            if (!batch) {
                break; // drained
            }
            for (const fastmq::message m : *batch) {
                const auto got = m.payload().as<order>().value_or(order{});
                mistakes += got.number != next[got.customer];
                next[got.customer] = got.number + 1;
                handled++;
            }
        }
        // Ends its queue, too; what is in it goes to the others.
        subscription.close();
    }

    fastmq::subscription subscription;
    std::thread thread;
    std::uint32_t handled = 0, mistakes = 0;
};

static bool run()
{
    order_book next{};
    auto mq = fastmq::open();
    std::list<worker> workers;
    const auto stays = std::numeric_limits<std::uint32_t>::max();
    workers.emplace_back(mq, next, customers * orders / 10);
    workers.emplace_back(mq, next, stays);
    workers.emplace_back(mq, next, stays);

    for (std::uint32_t number = 0; number < orders; number++) {
        if (number == orders / 2) {
            workers.emplace_back(mq, next, stays);
        }
        for (std::uint32_t customer = 0; customer < customers; customer++) {
            const order made{customer, number};
            const auto message = fastmq::outgoing("order.new", fastmq::bytes_of(made))
                                     .key(fastmq::bytes_of(customer));
            // Waits while the customer is on the way to another worker.
            mq.publish_wait(message, 10s);
        }
    }

    mq.drain(10s);
    std::uint32_t handled = 0, mistakes = 0;
    for (auto &worker : workers) {
        worker.thread.join();
        handled += worker.handled;
        mistakes += worker.mistakes;
    }
    std::cout << handled << " orders of " << customers << " customers were handled, " << mistakes
              << " of them out of order\n";
    return handled == customers * orders && mistakes == 0;
}

int main()
try {
    return run() ? 0 : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "work_by_key: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
