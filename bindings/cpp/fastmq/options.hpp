// Options of a client.
#ifndef FASTMQ_OPTIONS_HPP
#define FASTMQ_OPTIONS_HPP

#include "duration.hpp"
#include "queue.hpp"
#include "threads.hpp"

#include <fastmq.h>

#include <cstdint>

namespace fastmq {

/// Where time stamps come from: of messages (message::timestamp), but for those of claims, and of
/// batches (batch::received).
enum class timestamps : std::uint32_t {
    none = FASTMQ_TIMESTAMPS_NONE,   ///< There are none, and they cost nothing.
    clock = FASTMQ_TIMESTAMPS_CLOCK, ///< The host's clock.
    tsc = FASTMQ_TIMESTAMPS_TSC,     ///< The processor's counter; where it is no clock, the host's.
};

/// What the memory of a client's queues, blocks and latest values is. With any bit of it opening
/// takes options::memory_max bytes, which must not be 0, and has the system put memory behind each
/// page; handles, routes and copies of messages stay the allocator's. It is given back when the
/// client and all that was opened with it are closed, open batches included.
enum class memory : std::uint32_t {
    on_demand = 0,                           ///< The allocator's, taken when it is needed.
    prefault = FASTMQ_MEMORY_PREFAULT,       ///< There from the start, as with the other bits.
    lock = FASTMQ_MEMORY_LOCK,               ///< Never written to a swap file; denied without the right.
    huge_pages = FASTMQ_MEMORY_HUGE_PAGES,   ///< In huge pages; unsupported if there are none.
};

/// Both.
constexpr memory operator|(memory a, memory b) noexcept
{
    return static_cast<memory>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}

/// Options of a client; 0 is the default.
struct options {
    /// Cap on the bytes of lanes, blocks and latest values; 0: no cap.
    std::uint64_t memory_max = 0;
    /// Default capacity of a lane in bytes; 0: 8 MiB.
    std::uint64_t queue_capacity = 0;
    /// Largest payload; 0: 1 MiB; at most 64 MiB.
    std::uint64_t payload_max = 0;
    /// How readers wait.
    fastmq::wait wait = fastmq::wait::balanced;
    /// Library threads for delivery::thread; 0: 1.
    std::uint32_t threads_max = 0;
    /// How long close waits for running callbacks; zero: 5 s.
    duration close_timeout = {};
    /// What library threads are; opening tries it.
    thread_options threads = {};
    /// Whether messages and batches carry their time.
    fastmq::timestamps timestamps = fastmq::timestamps::none;
    /// What memory is.
    fastmq::memory memory = fastmq::memory::on_demand;
};

namespace detail {

/// `threads` outlives what is made of it.
inline fastmq_options to_raw(const options &with, const fastmq_thread_options &threads) noexcept
{
    fastmq_options wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.memory_max = with.memory_max;
    wanted.queue_capacity = with.queue_capacity;
    wanted.payload_max = with.payload_max;
    wanted.wait = static_cast<std::uint32_t>(with.wait);
    wanted.threads_max = with.threads_max;
    wanted.close_timeout_ns = with.close_timeout.count_ns();
    wanted.threads = &threads;
    wanted.timestamps = static_cast<std::uint32_t>(with.timestamps);
    wanted.memory = static_cast<std::uint32_t>(with.memory);
    return wanted;
}

} // namespace detail

} // namespace fastmq

#endif
