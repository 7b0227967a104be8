// Handles: moved and not copied, closed once, in any order, from any thread.
/* valgrind */
#include "check.hpp"

#include <memory>
#include <random>
#include <thread>
#include <type_traits>
#include <vector>

template <class T>
inline constexpr bool is_handle_v
    = !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>
    && std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>
    && std::is_nothrow_default_constructible_v<T>;
static_assert(is_handle_v<fastmq::client> && is_handle_v<fastmq::publisher>
              && is_handle_v<fastmq::queue> && is_handle_v<fastmq::subscription>
              && is_handle_v<fastmq::requester> && is_handle_v<fastmq::headers>
              && is_handle_v<fastmq::batch>);
// No cost over C: views are what they look at.
static_assert(sizeof(fastmq::message) == sizeof(void *)
              && sizeof(fastmq::queue_ref) == sizeof(void *)
              && std::is_trivially_copyable_v<fastmq::message>
              && std::is_trivially_copyable_v<fastmq::queue_ref>);

// Moves one handle through all that a move can be; it must be the same and usable at the end.
template <class Handle> static bool survives_moves(Handle first)
{
    const auto *raw = first.get();
    Handle second(std::move(first));
    Handle third;
    third = std::move(second);
    Handle &same = third;
    third = std::move(same);
    return !first && first.get() == nullptr && !second && third && third.get() == raw;
}

static void moving()
{
    auto mq = fastmq::open();
    CHECK(survives_moves(fastmq::open()), "a client moves");
    CHECK(survives_moves(mq.open_publisher("a")), "a publisher moves");
    CHECK(survives_moves(mq.open_queue()), "a queue moves");
    CHECK(survives_moves(mq.subscribe("a")), "a subscription moves");
    CHECK(survives_moves(mq.open_requester()), "a requester moves");
    fastmq::headers headers;
    headers.add("name", "value");
    CHECK(survives_moves(std::move(headers)), "headers move");
    auto sink = mq.subscribe("b");
    mq.publish("b", "payload");
    CHECK(survives_moves(sink.queue().receive(0s)), "a batch moves");
    CHECK_SAYS(sink.queue().try_receive(0s).status(), again, "and was freed at its end");
    CHECK_NUMBER(mq.statistics().subscriptions, 1, "what has moved away is closed at its end");

    const auto before = mq.statistics().queues;
    {
        auto queue = mq.open_queue();
        auto requester = mq.open_requester();
        CHECK_NUMBER(mq.statistics().queues, before + 2, "what is open is counted");
        queue = mq.open_queue();
        CHECK_NUMBER(mq.statistics().queues, before + 2, "assigning closes what was there before");
    }
    CHECK_NUMBER(mq.statistics().queues, before, "what an object owns is closed at its end");

    mq.publish("b", "first");
    auto other_sink = mq.subscribe("b");
    mq.publish("b", "second");
    fastmq::batch batch = sink.queue().receive(0s);
    batch = other_sink.queue().receive(0s);
    CHECK_SAYS(sink.queue().try_receive(0s).status(), again, "so is a batch: its queue is free");
    CHECK(batch.front().text() == "second", "and the new one is there");
    other_sink.close();

    auto other = mq.subscribe("c");
    other = mq.subscribe("d");
    CHECK_NUMBER(mq.statistics().subscriptions, 2, "a subscription ends when it is assigned");
    mq.publish("d", "payload");
    CHECK(other.queue().receive(0s).front().subject() == "d", "and the new one is there");

    fastmq::publisher orphan;
    {
        auto short_lived = fastmq::open();
        orphan = short_lived.open_publisher("a");
    }
    CHECK_SAYS(orphan.try_publish("b"), closed, "a client closes at its end");
}

static void empty_ones()
{
    fastmq::client mq;
    fastmq::publisher publisher;
    fastmq::queue queue;
    fastmq::subscription subscription;
    fastmq::requester requester;
    fastmq::batch batch;
    CHECK(!mq && !publisher && !queue && !subscription && !requester && !batch,
          "a handle that was not opened is empty");
    CHECK_SAYS(mq.try_publish("a", "b"), invalid, "an empty client is INVALID");
    CHECK_SAYS(publisher.try_publish("b"), invalid, "so is a publisher");
    CHECK_SAYS(queue.try_receive(0s).status(), invalid, "so is a queue");
    CHECK_SAYS(subscription.try_statistics().status(), invalid, "so is a subscription");
    CHECK_SAYS(requester.try_submit("b", 1, 1s), invalid, "so is a requester");
    CHECK_SAYS(batch.try_detach().status(), invalid, "so is a batch");
    CHECK(batch.empty() && batch.begin() == batch.end(), "which has no messages");
    CHECK(!subscription.queue() && queue.fd() == -1 && requester.in_flight() == 0,
          "calls without a status give what C gives");
    publisher.close();
    batch.free();
    CHECK(std::string(fastmq::last_error()).find("NULL") != std::string::npos,
          "the sentence says what is missing");
}

static void closing()
{
    auto mq = fastmq::open();
    auto publisher = mq.open_publisher("a");
    publisher.close();
    publisher.close();
    CHECK(!publisher, "a closed handle is not open");
    CHECK_SAYS(publisher.try_publish("b"), misuse, "a closed handle is MISUSE");
    CHECK_THROWS(publisher.publish("b"), misuse, "or throws it");
    CHECK(publisher.release() == nullptr, "there is nothing to give away");

    auto subscription = mq.subscribe("a");
    auto borrowed = subscription.queue();
    subscription.close();
    CHECK(borrowed.try_receive(0s).status() != fastmq::status::ok,
          "the queue of a subscription ends with it");

    // Children first, then the parent; and the other way round.
    auto first = fastmq::open();
    auto child = first.open_queue();
    first.close();
    CHECK_SAYS(child.try_receive(0s).status(), closed, "a child of a closed client is CLOSED");
    CHECK_SAYS(first.try_publish("a", "b"), misuse, "the client itself is closed");
}

static void owning_what_c_made()
{
    fastmq_client *raw = nullptr;
    NEED(fastmq_open(nullptr, &raw) == FASTMQ_OK);
    fastmq::client mq(raw);
    CHECK(mq.get() == raw && mq.statistics().subscriptions == 0, "a handle of C is taken over");
    fastmq_publisher *given = mq.open_publisher("a").release();
    CHECK(given != nullptr, "a handle can be given away");
    CHECK_NUMBER(fastmq_publisher_publish(given, fastmq::bytes_view("b").raw()), FASTMQ_OK,
                 "it is still open then");
    fastmq_publisher_close(given);

    auto sink = mq.subscribe("c");
    mq.publish("c", "payload");
    fastmq::batch received = sink.queue().receive(0s);
    fastmq::batch again(received.release());
    CHECK(!received && received.empty() && again.front().text() == "payload",
          "so can a batch, and be taken over");
}

// A receive that waits ends when another thread closes its client or its queue.
static void closing_wakes()
{
    auto mq = fastmq::open();
    auto queue = mq.open_queue();
    gate started;
    auto said = fastmq::status::ok;
    std::thread reader([&] {
        started.add();
        said = queue.try_receive(fastmq::forever).status();
    });
    NEED(started.wait(1));
    queue.close();
    reader.join();
    CHECK(said == fastmq::status::closed || said == fastmq::status::misuse,
          "a thread that waits in a queue is woken by close");
}

// Threads that close one object at the same time close it once.
static void closing_at_once()
{
    auto mq = fastmq::open();
    for (int round = 0; round < 100; round++) {
        auto publisher = mq.open_publisher("a");
        std::thread other([&] { publisher.close(); });
        publisher.close();
        other.join();
    }
    CHECK_NUMBER(log_lines, 0, "two threads that close one handle close it once");
}

// Random moves, closes and ends: what the client counts is what the objects own.
static void any_order()
{
    const auto seed = std::random_device{}();
    std::mt19937 random(seed);
    std::printf("# seed %u\n", seed);
    auto mq = fastmq::open();
    std::vector<fastmq::subscription> slots(8);
    std::vector<bool> is_open(8, false);
    unsigned wrong = 0;
    for (int step = 0; step < 2000; step++) {
        const auto at = random() % slots.size(), other = random() % slots.size();
        switch (random() % 5) {
        case 0:
            slots[at] = mq.subscribe("a.*");
            is_open[at] = true;
            break;
        case 1:
            slots[at] = mq.subscribe("a.*", fastmq::delivery::inline_, [](fastmq::message) {});
            is_open[at] = true;
            break;
        case 2:
            slots[at].close();
            is_open[at] = false;
            break;
        case 3:
            slots[at] = std::move(slots[other]);
            if (at != other) {
                is_open[at] = is_open[other];
                is_open[other] = false;
            }
            break;
        default:
            slots[at] = {};
            is_open[at] = false;
        }
        std::uint64_t open = 0;
        for (std::size_t i = 0; i < slots.size(); i++) {
            open += is_open[i];
            wrong += static_cast<bool>(slots[i]) != is_open[i];
        }
        wrong += mq.statistics().subscriptions != open;
    }
    CHECK_NUMBER(wrong, 0, "random moves and closes leave open what is owned, and nothing else");
}

int main()
{
    check_begin();
    count_log_lines();
    moving();
    empty_ones();
    closing();
    owning_what_c_made();
    closing_wakes();
    closing_at_once();
    any_order();
    CHECK_NUMBER(log_lines, 0, "no handle was closed twice");
    return check_end();
}
