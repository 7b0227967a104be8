// Two processes: the parent's broker listens, the child is a client of it. Only how they begin
// differs from one process.
#include <fastmq.hpp>

#include <chrono>
#include <iostream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;

// Buys three times and hears the price rise.
static int buy(const char *url)
{
    fastmq::connect_options options;
    options.name = "a buyer";
    options.later = true; // The parent may not listen yet.
    auto mq = fastmq::connect(url, options, [](fastmq::event told) {
        if (told.kind() == fastmq::event_kind::connected) {
            std::cout << "connected to " << told.server() << std::endl;
        }
    });
    auto prices = mq.subscribe("price.*");
    for (int i = 0; i < 3; i++) {
        const auto paid = mq.request("order.buy", "1", 5s);
        const auto now = prices.queue().receive(5s, 1);
        std::cout << "bought at " << paid.front().text() << ", the price is "
                  << now.front().text() << std::endl;
    }
    return 0;
}

// Fills three orders.
static void sell(const char *url)
{
    auto mq = fastmq::open();
    auto orders = mq.subscribe("order.buy");
    fastmq::listen_options options;
    options.name = "the market";
    auto server = mq.listen(url, options);
    for (unsigned price = 100; price < 103;) {
        for (const fastmq::message order : orders.queue().receive()) {
            mq.reply(order.token(), std::to_string(price++));
            mq.publish("price.now", std::to_string(price));
        }
    }
    server.close(1s);
}

int main()
try {
    const std::string url = "unix:/tmp/market-" + std::to_string(getpid()) + ".sock";
    // Before the library is used: a child has no use for its parent's broker.
    const pid_t child = fork();
    if (child == 0) {
        return buy(url.c_str());
    }
    sell(url.c_str());
    int status = 1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "across_processes: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
