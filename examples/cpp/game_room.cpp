// A game server in one process: 10 rooms of 100 players, 60 ticks a second.
//
//   players --input.PLAYER--> game     what they press; when the game is behind, the oldest go
//   game --room.ROOM--> players        what each room looks like, 512 bytes to each player in it
//   game --at.PLAYER--> board          where everybody is: only the newest place of each matters
//
// The game's queue drops the oldest and counts them, the board's keeps the latest of each subject:
// it looks ten times a second and gets each player who has moved once. At the end every message is
// accounted for: handled, or counted as dropped.
//
//     game_room [SECONDS]        --check: 20 ticks without waiting, for the tests
#include <fastmq.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

constexpr std::uint32_t room_count = 10, player_count = 1000, ticks_per_s = 60, board_every = 6;
constexpr std::size_t room_bytes = 512;

struct input {
    std::uint32_t player;
    std::int8_t x, y;
};

struct place {
    std::int32_t x, y;

    friend bool operator==(place a, place b) { return a.x == b.x && a.y == b.y; }
};

static fastmq::queue open_queue(const fastmq::client &mq, fastmq::policy policy,
                                std::uint64_t capacity = 0)
{
    fastmq::queue_options options;
    options.policy = policy;
    options.capacity = capacity;
    return mq.open_queue(options);
}

static fastmq::subscription listen_to(const fastmq::client &mq, const std::string &pattern,
                                      const fastmq::queue &queue, std::uint64_t tag = 0)
{
    fastmq::subscribe_options options;
    options.queue = queue;
    options.tag = tag;
    return mq.subscribe(pattern, options);
}

static std::vector<fastmq::publisher> speak(const fastmq::client &mq, const std::string &what,
                                            std::uint32_t count)
{
    std::vector<fastmq::publisher> publishers;
    for (std::uint32_t number = 0; number < count; number++) {
        publishers.push_back(mq.open_publisher(what + '.' + std::to_string(number)));
    }
    return publishers;
}

// Calls `use` with each message that waits in a queue.
template <class Use> static void take(const fastmq::queue &queue, Use use)
{
    while (const auto batch = queue.try_receive(0s)) {
        for (const fastmq::message m : *batch) {
            use(m);
        }
    }
}

// The players: each presses something in each tick, and sees its room.
struct players {
    explicit players(const fastmq::client &mq)
        : sight(open_queue(mq, fastmq::policy::drop_oldest, 4 << 20)),
          hands(speak(mq, "input", player_count))
    {
        for (std::uint32_t player = 0; player < player_count; player++) {
            // All share one queue; the tag says whose eyes it were.
            eyes.push_back(
                listen_to(mq, "room." + std::to_string(player % room_count), sight, player));
        }
    }

    void press(std::uint32_t tick)
    {
        for (std::uint32_t player = 0; player < player_count; player++) {
            const auto x = static_cast<std::int8_t>((player + tick) % 3);
            const auto y = static_cast<std::int8_t>((player * 7 + tick) % 3);
            const input pressed{player, static_cast<std::int8_t>(x - 1),
                                static_cast<std::int8_t>(y - 1)};
            hands[player].publish(fastmq::bytes_of(pressed));
        }
    }

    void look()
    {
        take(sight, [this](fastmq::message m) {
            seen++;
            wrong += m.payload()[0] != m.tag() % room_count;
        });
    }

    fastmq::queue sight;
    std::vector<fastmq::publisher> hands;
    std::vector<fastmq::subscription> eyes;
    std::uint64_t seen = 0, wrong = 0;
};

using places = std::array<place, player_count>;

// The game: moves whoever pressed something, shows each room, tells where everybody is.
struct game {
    explicit game(const fastmq::client &mq)
        : inputs(open_queue(mq, fastmq::policy::drop_oldest, 1 << 20)),
          heard(listen_to(mq, "input.*", inputs)),
          rooms(speak(mq, "room", room_count)),
          tells(speak(mq, "at", player_count))
    {
    }

    void tick()
    {
        take(inputs, [this](fastmq::message m) {
            const auto pressed = m.payload().as<input>().value_or(input{});
            auto &moves = at[pressed.player];
            moves.x += pressed.x;
            moves.y += pressed.y;
            tells[pressed.player].publish(fastmq::bytes_of(moves));
            handled++;
        });
        for (std::uint32_t room = 0; room < room_count; room++) {
            // Made where it will lie, once for all players of the room: nothing is copied.
            auto view = rooms[room].claim(room_bytes);
            std::memset(view.data(), static_cast<int>(room), room_bytes);
            view.commit();
        }
    }

    fastmq::queue inputs;
    fastmq::subscription heard;
    std::vector<fastmq::publisher> rooms, tells;
    places at{};
    std::uint64_t handled = 0;
};

// The board: who has moved since it last looked, once each.
struct board {
    explicit board(const fastmq::client &mq)
        : queue(open_queue(mq, fastmq::policy::latest)), told(listen_to(mq, "at.*", queue))
    {
    }

    void look()
    {
        looks++;
        take(queue, [this](fastmq::message m) {
            const auto player = std::stoul(std::string(m.subject().substr(3)));
            at.at(player) = m.payload().as<place>().value_or(place{});
            updates++;
            replaced += m.lost_before();
        });
    }

    fastmq::queue queue;
    fastmq::subscription told;
    places at{};
    std::uint64_t looks = 0, updates = 0, replaced = 0;
};

static bool run(std::uint32_t ticks, bool is_check)
{
    auto mq = fastmq::open();
    players players(mq);
    game game(mq);
    board board(mq);
    auto next = std::chrono::steady_clock::now();
    for (std::uint32_t tick = 1; tick <= ticks; tick++) {
        players.press(tick);
        game.tick();
        players.look();
        if (tick % board_every == 0) {
            board.look();
        }
        next += 1'000'000'000ns / ticks_per_s;
        if (!is_check) {
            std::this_thread::sleep_until(next);
        }
    }
    board.look();

    const auto heard = game.inputs.statistics(), saw = players.sight.statistics();
    const std::uint64_t sent = std::uint64_t{ticks} * player_count;
    const bool is_right = game.handled + heard.dropped == sent
        && players.seen + saw.dropped == sent && players.wrong == 0
        && board.updates + board.replaced == game.handled && board.at == game.at;
    std::cout << ticks << " ticks of " << room_count << " rooms with "
              << player_count / room_count << " players\n"
              << "inputs: " << game.handled << " handled, " << heard.dropped
              << " dropped as too old\n"
              << "views of rooms: " << players.seen << " seen, " << saw.dropped
              << " dropped as too old\n"
              << "board: " << board.looks << " looks, " << board.updates << " places seen, "
              << board.replaced << " replaced by newer ones\n"
              << (is_right ? "every message is accounted for" : "MESSAGES ARE MISSING") << '\n';
    return is_right;
}

int main(int argc, char **argv)
try {
    const std::string argument = argc > 1 ? argv[1] : "3";
    const bool is_check = argument == "--check";
    const auto ticks = is_check ? 20U : static_cast<std::uint32_t>(std::stoul(argument)) * 60U;
    return run(ticks, is_check) ? 0 : 1;
} catch (const fastmq::error &failure) {
    std::cerr << "game_room: " << failure.what() << " (" << failure.code() << ")\n";
    return 1;
} catch (const std::logic_error &) {
    std::cerr << "game_room: SECONDS is a number above 0\n";
    return 2;
}
