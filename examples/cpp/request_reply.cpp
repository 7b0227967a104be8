// Request and reply: a responder on a thread of the library, one question at a time, many at a
// time, and the ways in which a question ends without an answer.
#include <fastmq.hpp>

#include <chrono>
#include <cstdint>
#include <iostream>

using namespace std::chrono_literals;

// Answers one question: the token says whom the answer is for.
static void square(const fastmq::client &mq, fastmq::message question)
{
    if (const auto number = question.payload().as<std::uint64_t>()) {
        mq.reply(question.token(), fastmq::bytes_of(*number * *number));
    } else {
        mq.reply(question.token(), fastmq::outgoing("8 bytes, please"), fastmq::status::invalid);
    }
}

// Asks a thousand questions without waiting in between; the answers come in batches.
static std::uint64_t ask_many(const fastmq::client &mq)
{
    const std::uint64_t questions = 1000;
    fastmq::requester_options options;
    options.subject = "math.square";
    auto requester = mq.open_requester(options);
    for (std::uint64_t number = 1; number <= questions; number++) {
        requester.submit(fastmq::bytes_of(number), number, 5s);
    }
    std::uint64_t right = 0, answers = 0;
    while (answers < questions) {
        for (const fastmq::message m : requester.receive()) {
            // The token is the one given with the question; the status says how it ended.
            right += m.status() == fastmq::status::ok
                && m.payload().as<std::uint64_t>() == m.token() * m.token();
            answers++;
        }
    }
    return right;
}

static bool run()
{
    auto mq = fastmq::open();
    // Ends with this block, however it is left; nothing of it runs after that.
    auto responder = mq.subscribe("math.square", fastmq::delivery::thread,
                                  [&](fastmq::message question) { square(mq, question); });

    const std::uint64_t twelve = 12;
    const auto reply = mq.request("math.square", fastmq::bytes_of(twelve), 5s);
    const auto answer = reply.front().payload().as<std::uint64_t>().value_or(0);
    std::cout << "12 squared is " << answer << '\n';

    const std::uint64_t right = ask_many(mq);
    std::cout << right << " of 1000 answers are right\n";

    // The responder may refuse: its status and its words are in the answer.
    const auto refused = mq.request("math.square", "twelve", 5s);
    std::cout << "math.square of twelve: " << refused.front().text() << '\n';

    // Nobody listens: the engine says so at once, whatever the time-out.
    const auto nobody = mq.try_request("math.cube", fastmq::bytes_of(twelve), fastmq::forever);
    std::cout << "math.cube: " << fastmq::status_text(nobody.status()) << '\n';

    return answer == 144 && right == 1000
        && refused.front().status() == fastmq::status::invalid
        && nobody.status() == fastmq::status::no_responder;
}

int main()
try {
    return run() ? 0 : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "request_reply: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
