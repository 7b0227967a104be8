// An event loop of your own: poll waits for a timer and, by one descriptor, for all that concerns a
// client: messages, questions and answers. One thread, and nothing blocks it.
//
// The descriptor is readable exactly while there is something to do. It is for waiting only: what
// is there is done by client::dispatch, never by read(2).
#include <fastmq.hpp>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <sys/timerfd.h>
#include <unistd.h>

using namespace std::chrono_literals;

constexpr int readings = 5;
constexpr long tick_ns = 2'000'000;

// A timer as a descriptor.
class timer {
public:
    timer() : fd_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) { set(tick_ns); }
    timer(const timer &) = delete;
    timer &operator=(const timer &) = delete;
    ~timer() { ::close(fd_); }

    int fd() const { return fd_; }

    // True if it has ticked since the last look.
    bool take() const
    {
        std::uint64_t ticks = 0;
        return ::read(fd_, &ticks, sizeof ticks) == sizeof ticks;
    }

    // Ticks every so often; 0 stops it.
    void set(long ns) const
    {
        const itimerspec every{{0, ns}, {0, ns}};
        if (timerfd_settime(fd_, 0, &every, nullptr) != 0) {
            throw std::runtime_error("there is no timer");
        }
    }

private:
    int fd_;
};

static std::string run()
{
    auto mq = fastmq::open();
    std::string newest, answer;
    fastmq::requester_options options;
    options.subject = "temperature";
    auto asker = mq.open_requester(options);

    // Called by dispatch with each reading; the last one has the loop ask. submit does not wait:
    // the answer comes through the loop as everything else.
    auto sensors = mq.subscribe("sensor.*", fastmq::delivery::dispatch, [&](fastmq::message m) {
        newest = m.text();
        std::cout << m.subject() << ": " << newest << " degrees\n";
        if (newest == "24") {
            asker.submit("", 0, 5s);
        }
    });
    auto questions = mq.subscribe("temperature", fastmq::delivery::dispatch,
                                  [&](fastmq::message m) { mq.reply(m.token(), newest); });

    const timer ticks;
    int published = 0;
    pollfd watched[] = {{mq.fd(), POLLIN, 0}, {ticks.fd(), POLLIN, 0}};
    while (answer.empty()) {
        if (poll(watched, 2, 10'000) <= 0) {
            throw std::runtime_error("nothing happens for 10 seconds");
        }
        // Each tick is a reading, until there are enough.
        if (ticks.take()) {
            mq.publish("sensor." + std::to_string(published % 2), std::to_string(20 + published));
            if (++published == readings) {
                ticks.set(0);
            }
        }
        if (mq.dispatch().answers()) {
            answer = asker.receive(0s).front().text();
        }
    }
    std::cout << "it is " << answer << " degrees now\n";
    return answer;
}

int main()
try {
    return run() == "24" ? 0 : 1;
} catch (const std::exception &failure) {
    std::cerr << "event_loop: " << failure.what() << '\n';
    return 1;
}
