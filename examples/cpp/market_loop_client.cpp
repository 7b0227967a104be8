// A client of another process inside a loop of your own: its one descriptor stands in poll beside
// yours (here a timer), and nothing of it blocks or has a thread. Buys three times from
// examples/c/market_server.c, at each tick of the timer, and hears the price rise.
//
//   market_loop_client [URL]
#include <fastmq.hpp>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <poll.h>
#include <sys/timerfd.h>
#include <system_error>
#include <unistd.h>

using namespace std::chrono_literals;

namespace {

constexpr unsigned wanted = 3;

// A timer of the program's own.
class ticker {
public:
    ticker() : fd_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK))
    {
        const itimerspec every = {{0, 10'000'000}, {0, 10'000'000}}; // 10 ms
        if (fd_ < 0 || ::timerfd_settime(fd_, 0, &every, nullptr) != 0) {
            throw std::system_error(errno, std::generic_category(), "timerfd");
        }
    }
    ~ticker() { ::close(fd_); }
    ticker(const ticker &) = delete;
    ticker &operator=(const ticker &) = delete;
    int fd() const { return fd_; }
    bool has_ticked() const
    {
        std::uint64_t expirations = 0;
        return ::read(fd_, &expirations, sizeof expirations) == sizeof expirations;
    }

private:
    int fd_;
};

void buy(const char *url)
{
    // All of it is used on this thread only: callbacks run inside dispatch.
    bool is_connected = false;
    unsigned asked = 0, bought = 0, prices = 0;
    fastmq::connect_options options;
    options.polled = options.later = options.unconfirmed = true;
    auto mq = fastmq::connect(url, options, [&](fastmq::event told) {
        is_connected = told.kind() == fastmq::event_kind::connected;
    });
    auto heard = mq.subscribe("price.*", fastmq::delivery::dispatch, [&](fastmq::message price) {
        prices++;
        std::cout << "the price is " << price.text() << std::endl;
    });
    fastmq::requester_options to;
    to.subject = "order.buy";
    auto orders = mq.open_requester(to);

    const ticker ticks;
    pollfd fds[] = {{mq.fd(), POLLIN, 0}, {ticks.fd(), POLLIN, 0}};
    while (bought < wanted || prices < wanted) {
        ::poll(fds, 2, -1);
        // Sends, receives, connects again, calls the callbacks.
        if (fds[0].revents != 0 && mq.dispatch().answers()) {
            while (const auto answers = orders.try_receive(0s)) {
                for (const fastmq::message answer : *answers) {
                    if (answer.status() != fastmq::status::ok) {
                        // Timeout, or disconnected: who knows whether it was filled.
                        throw fastmq::error(answer.status(), fastmq::status_text(answer.status()));
                    }
                    bought++;
                    std::cout << "bought at " << answer.text() << std::endl;
                }
            }
        }
        // Without a connection a request is unavailable: the next tick tries again.
        if (fds[1].revents != 0 && ticks.has_ticked() && is_connected && asked < wanted
            && orders.try_submit("1", asked, 5s) == fastmq::status::ok) {
            asked++;
        }
    }
}

} // namespace

int main(int count, char **arguments)
try {
    buy(count > 1 ? arguments[1] : "unix:/tmp/market.sock");
    return 0;
} catch (const fastmq::error &failure) {
    std::cerr << "market_loop_client: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
