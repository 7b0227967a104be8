// What threads are to be: the library's, and your own.
#ifndef FASTMQ_THREADS_HPP
#define FASTMQ_THREADS_HPP

#include "bytes.hpp"
#include "status.hpp"

#include <fastmq.h>

#include <cstdint>
#include <string_view>

namespace fastmq {

/// How the kernel chooses among threads.
enum class scheduling : std::uint32_t {
    keep = FASTMQ_SCHEDULING_KEEP,   ///< As it is; a new thread begins with its starter's.
    other = FASTMQ_SCHEDULING_OTHER, ///< SCHED_OTHER: shares its core with the others.
    fifo = FASTMQ_SCHEDULING_FIFO,   ///< SCHED_FIFO: runs until it sleeps.
    rr = FASTMQ_SCHEDULING_RR,       ///< SCHED_RR: in turns with those of its own priority.
};

/// What a thread is to be; 0 leaves it as it is.
struct thread_options {
    /// What /proc shows: at most 15 bytes; 11 for the threads of a client, whose names are this,
    /// "-" and a number. Borrowed until the call returns.
    std::string_view name = {};
    /// The cores it may run on: bit n for core n, of the first 64.
    std::uint64_t cores = 0;
    /// How the kernel chooses.
    fastmq::scheduling scheduling = fastmq::scheduling::keep;
    /// 1 to 99 under fifo and rr, else 0.
    std::uint32_t priority = 0;
};

namespace detail {

inline fastmq_thread_options to_raw(const thread_options &options) noexcept
{
    fastmq_thread_options wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.name = to_bytes(options.name);
    wanted.cores = options.cores;
    wanted.scheduling = static_cast<std::uint32_t>(options.scheduling);
    wanted.priority = options.priority;
    return wanted;
}

} // namespace detail

/// Makes the calling thread what `options` say. Whatever they say, the library learns whether this
/// is a real-time thread, which pauses when it spins: a thread that became one by other means calls
/// this once. Statuses: ok, invalid (a core that is not there, a priority out of range), denied
/// (the right is missing; the sentence names the cure), io; after a failure nothing has changed.
inline status try_thread_setup(const thread_options &options = {}) noexcept
{
    const auto wanted = detail::to_raw(options);
    return detail::to_status(fastmq_thread_setup(&wanted));
}

#if FASTMQ_HAS_EXCEPTIONS
/// As try_thread_setup; throws error.
inline void thread_setup(const thread_options &options = {})
{
    detail::check(try_thread_setup(options));
}
#endif

} // namespace fastmq

#endif
