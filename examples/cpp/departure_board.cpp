// A departure board: one thread replays 20,000 real flights, another shows the newest of each
// airport, as often as it likes.
//
// The board's queue keeps the latest message of each subject: however fast the flights come, a look
// gets each airport that has changed once, and memory does not grow. The flights are written where
// the board reads them: a claim is room in the queue, and a commit publishes it.
//
//     departure_board [flights.csv]
#include <fastmq.hpp>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <string>
#include <thread>

using namespace std::chrono_literals;

struct departure {
    char time[17], destination[4];
    std::int32_t delay_min;
    std::uint32_t number; // counts all flights, so that a newer one is known
};

// "2001/01/01 00:47,66,1750,DTW,LAS"
static bool parse(const std::string &line, departure &flight, std::string &origin)
{
    const auto delay = line.find(','), distance = line.find(',', delay + 1);
    const auto from = line.find(',', distance + 1), to = line.find(',', from + 1);
    if (delay != 16 || to == std::string::npos || line.size() < to + 4) {
        return false; // the head of the table
    }
    std::memcpy(flight.time, line.data(), 16);
    std::memcpy(flight.destination, line.data() + to + 1, 3);
    flight.delay_min = std::stoi(line.substr(delay + 1, distance - delay - 1));
    origin = line.substr(from + 1, to - from - 1);
    return true;
}

// Publishes every flight; gives how many there were, and the last of each airport.
static std::map<std::string, departure> replay(fastmq::client &mq, std::istream &file,
                                               std::uint32_t &count)
{
    std::map<std::string, fastmq::publisher> airports;
    std::map<std::string, departure> last;
    std::string line, origin;
    while (std::getline(file, line)) {
        departure flight{};
        if (!parse(line, flight, origin)) {
            continue;
        }
        flight.number = ++count;
        auto airport = airports.find(origin);
        if (airport == airports.end()) {
            airport = airports.emplace(origin, mq.open_publisher("board." + origin)).first;
        }
        auto room = airport->second.claim(sizeof flight);
        std::memcpy(room.data(), &flight, sizeof flight);
        room.commit();
        last[origin] = flight;
    }
    return last;
}

static bool run(std::istream &file)
{
    auto mq = fastmq::open();
    fastmq::queue_options newest;
    newest.policy = fastmq::policy::latest;
    auto queue = mq.open_queue(newest);
    fastmq::subscribe_options into;
    into.queue = queue;
    auto airports = mq.subscribe("board.*", into);

    std::map<std::string, departure> shown, last;
    std::uint32_t published = 0;
    std::uint64_t looks = 0, seen = 0, replaced = 0;
    bool is_newer = true;
    std::thread flights([&] {
        last = replay(mq, file, published);
        (void)mq.try_drain(fastmq::forever); // so that the board's last receive says `end`
    });
    // Waits for a change, then takes all that has changed.
    while (auto batch = queue.try_receive(fastmq::forever)) {
        looks++;
        for (const fastmq::message m : *batch) {
            departure flight;
            std::memcpy(&flight, m.payload().data(), sizeof flight);
            auto &before = shown[std::string(m.subject().substr(6))];
            is_newer = is_newer && flight.number > before.number;
            before = flight;
            seen++;
            replaced += m.lost_before();
        }
        std::this_thread::sleep_for(1ms); // a person would look less often
    }
    flights.join();

    bool is_right = is_newer && shown.size() == last.size() && seen + replaced == published;
    std::cout << published << " flights, " << looks << " looks, " << seen << " seen, " << replaced
              << " replaced by newer ones\n\n  from  to   time              delay\n";
    int row = 0;
    for (const auto &[origin, flight] : shown) {
        is_right = is_right && last[origin].number == flight.number;
        if (row++ < 10) {
            std::cout << "  " << std::left << std::setw(5) << origin << ' ' << flight.destination
                      << "  " << flight.time << std::right << std::setw(6) << flight.delay_min
                      << " min\n";
        }
    }
    std::cout << "  and " << shown.size() - 10 << " more; "
              << (is_right ? "each is the newest of its airport" : "NOT THE NEWEST") << '\n';
    return is_right;
}

int main(int argc, char **argv)
try {
    const char *path = argc > 1 ? argv[1] : "examples/data/flights.csv";
    std::ifstream file(path);
    if (!file) {
        std::cerr << "departure_board: " << path << ": no such file; give its path\n";
        return 2;
    }
    return run(file) ? 0 : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "departure_board: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
}
