// Many answers to one request: a census that asks everybody, and a search that streams what it
// finds for as long as somebody wants to hear it.
#include <fastmq.hpp>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <limits>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

constexpr std::uint64_t all = std::numeric_limits<std::uint64_t>::max();

static bool is_prime(std::uint64_t number)
{
    for (std::uint64_t by = 2; by * by <= number; by++) {
        if (number % by == 0) {
            return false;
        }
    }
    return number > 1;
}

// Streams the primes from 2 on; the asker says how many it wants, by taking them.
static void stream_primes(fastmq::reply_stream stream, std::uint64_t end)
try {
    for (std::uint64_t number = 2; number < end; number++) {
        if (is_prime(number)) {
            // Waits while the asker is behind: its credit is what it can take.
            stream.send_wait(fastmq::bytes_of(number), fastmq::forever);
        }
    }
    stream.end();
} catch (const fastmq::error &failure) {
    if (failure.status() != fastmq::status::cancelled) {
        throw;
    }
    std::cout << "the search has stopped\n"; // Nobody wants more.
}

// Answers `primes` until its queue is drained.
static void search(const fastmq::client &mq, const fastmq::subscription &questions)
{
    while (auto batch = questions.queue().try_receive(fastmq::forever, 1)) {
        const auto question = batch->front();
        const auto token = question.token();
        const auto end = question.payload().as<std::uint64_t>().value_or(0);
        batch->free(); // The token is good for longer.
        stream_primes(mq.open_reply_stream(token), end);
    }
}

// Asks for the primes below `end` and takes `wanted` of them at most; how many came.
static std::uint64_t take_primes(fastmq::requester &requester, std::uint64_t end,
                                 std::uint64_t wanted)
{
    fastmq::many_options options;
    options.credit = 16; // As far may the search be ahead.
    options.gap = 10s;   // It hangs if it is silent for so long.
    requester.submit_many(fastmq::outgoing(fastmq::bytes_of(end)).token(end), fastmq::forever,
                          options);
    std::uint64_t primes = 0, last = 0;
    for (bool is_over = false; !is_over;) {
        for (const fastmq::message reply : requester.receive()) {
            if (reply.is_end()) {
                is_over = true;
            } else if (primes < wanted) {
                last = reply.payload().as<std::uint64_t>().value_or(0);
                if (++primes == wanted) {
                    std::cout << primes << " primes are enough, the last is " << last << '\n';
                    requester.cancel(end);
                }
            }
        }
    }
    if (primes < wanted) {
        std::cout << primes << " primes below " << end << ", the last is " << last << '\n';
    }
    return primes;
}

static bool run()
{
    auto mq = fastmq::open();

    // Everybody who listens gets the question; one call waits for the answers of all.
    std::vector<fastmq::subscription> members;
    for (int member = 0; member < 3; member++) {
        members.push_back(mq.subscribe("census", fastmq::delivery::inline_,
            [&](fastmq::message question) { mq.reply(question.token(), "here"); }));
    }
    const auto answers = mq.request_many(fastmq::outgoing("census", ""), fastmq::answers_all, 1s);
    std::cout << answers.size() << " members are here\n";

    auto questions = mq.subscribe("primes");
    std::thread searcher([&] { search(mq, questions); });
    fastmq::requester_options options;
    options.subject = "primes";
    auto requester = mq.open_requester(options);
    // A stream to its end, and one that is cancelled when there is enough.
    const auto below = take_primes(requester, 1000, all);
    const auto some = take_primes(requester, all, 5000);

    // Before drain: what a cancelled search had sent already is nobody's.
    requester.close();
    mq.drain(5s);
    searcher.join();
    return answers.size() == 3 && below == 168 && some == 5000;
}

int main()
try {
    return run() ? 0 : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "streaming_reply: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
