// Request and reply: a responder on a thread of the library, one question at a time, many at a
// time, and the ways in which a question ends without an answer.
#include <fastmq.hpp>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

using namespace std::chrono_literals;

constexpr std::uint64_t questions = 1000;

static std::optional<std::uint64_t> parse(std::string_view digits)
{
    std::uint64_t number = 0;
    const char *end = digits.data() + digits.size();
    const auto parsed = std::from_chars(digits.data(), end, number);
    return parsed.ec == std::errc() && parsed.ptr == end ? std::optional(number) : std::nullopt;
}

// Answers one question: the token says whom the answer is for.
static void square(const fastmq::client &mq, fastmq::message question)
{
    if (const auto number = parse(question.text())) {
        mq.reply(question.token(), std::to_string(*number * *number));
    } else {
        mq.reply(question.token(), fastmq::outgoing("not a number"), fastmq::status::invalid);
    }
}

// Asks a thousand questions without waiting in between; the answers come in batches.
static std::uint64_t ask_many(const fastmq::client &mq)
{
    fastmq::requester_options options;
    options.subject = "math.square";
    auto requester = mq.open_requester(options);
    for (std::uint64_t number = 0; number < questions; number++) {
        requester.submit(std::to_string(number), number, 5s);
    }
    std::uint64_t right = 0;
    while (requester.in_flight() > 0) {
        for (const fastmq::message answer : requester.receive()) {
            // The token is the one given with the question; the status says how it ended.
            right += answer.status() == fastmq::status::ok
                && parse(answer.text()) == answer.token() * answer.token();
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

    const auto answer = mq.request("math.square", "12", 5s);
    std::cout << "12 squared is " << answer.front().text() << '\n';

    const std::uint64_t right = ask_many(mq);
    std::cout << right << " of " << questions << " answers are right\n";

    // The responder may refuse: its status and its words are in the answer.
    const auto refused = mq.request("math.square", "twelve", 5s);
    std::cout << "math.square of twelve: " << fastmq::status_name(refused.front().status()) << ", "
              << refused.front().text() << '\n';

    // Nobody listens: the engine says so at once, whatever the time-out. A try_ call gives a
    // status instead of an exception.
    const auto nobody = mq.try_request("math.cube", "12", fastmq::forever);
    std::cout << "math.cube: " << fastmq::status_name(nobody.status()) << '\n';

    return right == questions && refused.front().status() == fastmq::status::invalid
        && nobody.status() == fastmq::status::no_responder;
}

int main()
try {
    return run() ? 0 : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "request_reply: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
