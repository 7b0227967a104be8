// Callbacks: any callable, on each kind of thread; exceptions that leave them; and captures that
// live as long as they can be used and no longer.
/* valgrind */
#include "check.hpp"

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

using fastmq::delivery;
using fastmq::message;

static void deliveries()
{
    auto mq = fastmq::open();
    const auto here = std::this_thread::get_id();
    gate calls;
    std::thread::id ran;
    std::string got;
    const auto note = [&](message m) {
        ran = std::this_thread::get_id();
        got = std::string(m.subject()) + "=" + std::string(m.text());
        calls.add();
    };
    {
        auto inline_one = mq.subscribe("a", delivery::inline_, note);
        mq.publish("a", "1");
        CHECK(got == "a=1" && ran == here, "inline: on the publishing thread, before it returns");
        CHECK(!inline_one.queue(), "a subscription with a callback has no queue to read");
    }
    {
        auto dispatched = mq.subscribe("a", delivery::dispatch, note);
        mq.publish("a", "2");
        CHECK(got == "a=1", "dispatch: not before dispatch is called");
        CHECK(mq.dispatch().messages() && got == "a=2" && ran == here, "then on its thread");
    }
    {
        auto threaded = mq.subscribe("a", delivery::thread, note);
        mq.publish("a", "3");
        CHECK(calls.wait(3) && got == "a=3" && ran != here, "thread: on a thread of the library");
        CHECK(mq.statistics().threads == 1, "which the client counts");
    }
    mq.publish("a", "4");
    CHECK_NUMBER(calls.count(), 3, "a subscription that has ended calls nothing");
}

static int free_calls = 0;
static void free_function(message) { free_calls++; }

static void callables()
{
    auto mq = fastmq::open();
    fastmq::subscribe_options tagged;
    tagged.tag = 5;
    tagged.group = "one";
    std::uint64_t tag = 0;
    const auto by_reference = [&](const message &m) { tag = m.tag(); };
    auto lambda = mq.subscribe("c", delivery::inline_, by_reference, tagged);
    auto function = mq.subscribe("c", delivery::inline_, free_function);
    auto owner = mq.subscribe("c", delivery::inline_,
                              [owned = std::make_unique<int>(0)](message) { ++*owned; });
    unsigned mutable_calls = 0;
    auto counting = [count = 0u, &mutable_calls](message) mutable { mutable_calls = ++count; };
    auto mutable_one = mq.subscribe("c", delivery::inline_, counting);
    std::function<void(message)> kept = [&](message) { free_calls++; };
    auto wrapped = mq.subscribe("c", delivery::inline_, kept);
    kept = nullptr;
    mq.publish("c", "x");
    mq.publish("c", "x");
    CHECK_NUMBER(tag, 5, "a lambda, with options");
    CHECK_NUMBER(free_calls, 4, "a function, and a std::function, of which a copy is kept");
    CHECK_NUMBER(mutable_calls, 2, "a lambda with a state of its own");
    CHECK(static_cast<bool>(owner), "a lambda that can only be moved");
}

static std::string reported;

static void exceptions()
{
    auto mq = fastmq::open();
    const auto handler = [](std::exception_ptr failure, message m) {
        try {
            std::rethrow_exception(failure);
        } catch (const std::exception &caught) {
            reported += std::string(m.subject()) + ": " + caught.what() + ";";
        } catch (int number) {
            reported += std::to_string(number) + ";";
        }
    };
    CHECK(fastmq::set_exception_handler(handler) == nullptr, "at first there is no handler");
    unsigned after = 0;
    auto throwing = mq.subscribe("e.*", delivery::inline_, [&](message m) {
        if (m.text() == "number") {
            throw 42;
        }
        throw std::runtime_error("told " + std::string(m.text()));
    });
    auto dispatched = mq.subscribe("d", delivery::dispatch, [](message) { throw 43; });
    auto steady = mq.subscribe("e.*", delivery::inline_, [&](message) { after++; });
    CHECK_SAYS(mq.try_publish("e.x", "once"), ok, "an exception does not reach the publisher");
    mq.publish("e.y", "number");
    mq.publish("d", "");
    mq.publish("d", "");
    CHECK(mq.dispatch().messages(), "nor dispatch");
    CHECK(reported == "e.x: told once;42;43;43;", "the handler gets it, with the message");
    CHECK_NUMBER(after, 2, "other callbacks of the message are called");

    auto threaded = mq.subscribe("t", delivery::thread, [](message) { throw 44; });
    mq.publish("t", "");
    mq.drain(patience);
    CHECK(reported == "e.x: told once;42;43;43;44;", "a thread of the library goes on, too");
    CHECK(fastmq::set_exception_handler(nullptr) != nullptr, "the old handler is given back");
}

// Without a handler the program ends as for an exception that leaves a thread.
static void without_a_handler()
{
    static int ends[2];
    NEED(pipe(ends) == 0);
    std::fflush(stdout);
    const pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        std::set_terminate([] {
            char number = 0;
            try {
                std::rethrow_exception(std::current_exception());
            } catch (char thrown) {
                number = thrown;
            }
            // Killed, so that nothing looks at what such an end leaves in memory.
            (void)!write(ends[1], &number, 1);
            kill(getpid(), SIGKILL);
        });
        auto mq = fastmq::open();
        auto throwing = mq.subscribe("e", delivery::inline_, [](message) { throw 'x'; });
        mq.publish("e", "");
        _exit(0);
    }
    int how = 0;
    char number = 0;
    close(ends[1]);
    NEED(waitpid(child, &how, 0) == child);
    CHECK(read(ends[0], &number, 1) == 1 && number == 'x' && WIFSIGNALED(how),
          "without a handler std::terminate is called, with the exception at hand");
}

static void captures()
{
    std::atomic<int> living{0};
    auto mq = fastmq::open();
    const auto make = [&] { return [one = counted(living)](message) {}; };
    {
        auto subscription = mq.subscribe("c", delivery::inline_, make());
        CHECK_NUMBER(living, 1, "captures live with the subscription");
        auto moved = std::move(subscription);
        CHECK_NUMBER(living, 1, "also when it moves");
        moved.close();
        CHECK_NUMBER(living, 0, "and end with its close");
        moved.close();
    }
    {
        auto subscription = mq.subscribe("c", delivery::thread, make());
        mq.close();
        CHECK_NUMBER(living, 1, "the client's close leaves them");
    }
    CHECK_NUMBER(living, 0, "the subscription's end takes them");
    CHECK_SAYS(mq.try_subscribe("c", delivery::inline_, make()).status(), misuse,
               "a subscribe that fails");
    CHECK_NUMBER(living, 0, "keeps nothing");
}

// A callback ends its own subscription, at the depth `depth` of nested calls of itself, and uses
// what it has captured afterwards.
static void end_inside(delivery how, int depth, const char *name)
{
    std::atomic<int> living{0};
    auto mq = fastmq::open();
    gate calls;
    fastmq::subscription subscription;
    int level = 0;
    std::string after;
    const std::string alive = "alive";
    subscription = mq.subscribe("end", how, [&, one = counted(living), text = alive](message) {
        level++;
        if (level < depth) {
            mq.publish("end", "");
        } else {
            subscription.close();
        }
        after += text + std::to_string(living);
        calls.add();
    });
    mq.publish("end", "");
    if (how == delivery::dispatch) {
        mq.dispatch();
    }
    NEED(calls.wait(static_cast<std::uint64_t>(depth)));
    mq.close(); // Waits for a thread of the library that is still in the callback.
    std::string expected;
    for (int i = 0; i < depth; i++) {
        expected += "alive1";
    }
    CHECK(after == expected, name);
    CHECK_NUMBER(living, 0, "and its captures end when it has returned");
    CHECK(!subscription, "it is closed");
}

// What captures references alone is called as a copy: it may be gone while it runs.
static void end_a_plain_one_inside()
{
    auto mq = fastmq::open();
    fastmq::subscription subscription;
    std::string text = "before";
    const auto plain = [&subscription, &text](message m) {
        subscription.close();
        text = std::string(m.text());
    };
    auto counting = [count = 0](message) mutable { count++; };
    auto owning = [text](message) {};
    static_assert(fastmq::detail::is_plain_v<std::decay_t<decltype(plain)>>);
    static_assert(!fastmq::detail::is_plain_v<decltype(counting)>);
    static_assert(!fastmq::detail::is_plain_v<decltype(owning)>);
    subscription = mq.subscribe("end", delivery::inline_, plain);
    mq.publish("end", "after");
    CHECK(text == "after", "a plain callback may end its own subscription, too");
    (void)counting, (void)owning;
}

static void close_inside()
{
    std::atomic<int> living{0};
    auto mq = fastmq::open();
    {
        const auto closing = [&mq, one = counted(living)](message) { mq.close(); };
        auto subscription = mq.subscribe("end", delivery::inline_, closing);
        mq.publish("end", "");
        CHECK_NUMBER(living, 2, "a callback may close its client");
    }
    CHECK_NUMBER(living, 0, "its captures end with the subscription");
}

// Threads publish while the subscription ends: afterwards nothing is called.
static void end_under_load(delivery how, const char *name)
{
    auto mq = fastmq::open();
    std::atomic<bool> is_over{false};
    std::atomic<int> living{0}, violations{0};
    gate calls;
    std::vector<std::thread> publishers;
    auto subscription = mq.subscribe("load", how, [&, one = counted(living)](message) {
        violations += living != 1;
        calls.add();
    });
    for (int i = 0; i < 2; i++) {
        publishers.emplace_back([&] {
            while (!is_over) {
                (void)mq.try_publish_wait(fastmq::outgoing("load", "x"), 1s);
                std::this_thread::yield();
            }
        });
    }
    NEED(calls.wait(100));
    subscription.close();
    const auto seen = calls.count();
    violations += living != 0;
    for (int i = 0; i < 1000; i++) {
        (void)mq.try_publish("load", "x");
    }
    is_over = true;
    for (auto &publisher : publishers) {
        publisher.join();
    }
    violations += calls.count() != seen;
    CHECK_NUMBER(violations, 0, name);
}

// A callback that takes longer than close waits keeps its captures.
static void outlasting()
{
    std::atomic<int> living{0};
    gate entered, release, left;
    fastmq::options options;
    options.close_timeout = 1ms;
    auto mq = fastmq::open(options);
    // Reached from outside, so that the test itself leaks nothing.
    auto *captured = new counted(living);
    auto subscription = mq.subscribe("slow", delivery::thread,
                                     [&, kept = std::shared_ptr<counted>(captured)](message) {
        entered.add();
        release.wait(1);
        CHECK(living == 1 && kept.get() == captured,
              "a callback that outlasts the end of its subscription keeps its captures");
        left.add();
    });
    mq.publish("slow", "");
    NEED(entered.wait(1));
    subscription.close();
    CHECK_NUMBER(living, 1, "close gives up waiting after its time-out");
    release.add();
    NEED(left.wait(1));
}

int main()
{
    check_begin();
    without_a_handler(); // First: it forks, and no client is open yet.
    deliveries();
    callables();
    exceptions();
    captures();
    end_inside(delivery::inline_, 1, "inline: a callback may end its own subscription");
    end_inside(delivery::inline_, 3, "inline: also when it is called inside itself");
    end_inside(delivery::dispatch, 1, "dispatch: a callback may end its own subscription");
    end_inside(delivery::thread, 1, "thread: a callback may end its own subscription");
    end_a_plain_one_inside();
    close_inside();
    end_under_load(delivery::inline_, "inline: after its end a callback is not called");
    end_under_load(delivery::thread, "thread: after its end a callback is not called");
    outlasting();
    return check_end();
}
