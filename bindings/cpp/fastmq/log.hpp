// The log of the library.
#ifndef FASTMQ_LOG_HPP
#define FASTMQ_LOG_HPP

#include <fastmq.h>

#include <cstdint>
#include <string_view>

namespace fastmq {

/// How important a line of the log is.
enum class log_level : std::uint32_t {
    off = FASTMQ_LOG_OFF,     ///< No lines.
    error = FASTMQ_LOG_ERROR, ///< Something failed.
    warn = FASTMQ_LOG_WARN,   ///< Something is not as it should be.
    info = FASTMQ_LOG_INFO,   ///< Something that happens seldom.
    debug = FASTMQ_LOG_DEBUG, ///< Something for the developers.
};

/// Gets a line of the log; the texts are readable until it returns. It may run on any thread. An
/// exception that leaves it ends the program.
using log_handler = void (*)(log_level level, std::string_view target, std::string_view text);

/// Sets what gets the lines of the log up to `level`; nullptr: nothing. One for the process, and a
/// function, as the one set before may still run when this returns. Safe from any thread.
inline void set_log(log_level level, log_handler handler) noexcept
{
    if (handler == nullptr) {
        fastmq_set_log(FASTMQ_LOG_OFF, nullptr, nullptr);
        return;
    }
    // POSIX promises that a function's address fits into a void pointer.
    static_assert(sizeof(log_handler) == sizeof(void *), "a function is no address here");
    const auto on_log = [](std::uint32_t at, const char *target, const char *text,
                           void *context) noexcept {
        reinterpret_cast<log_handler>(context)(static_cast<log_level>(at), target, text);
    };
    fastmq_set_log(static_cast<std::uint32_t>(level), on_log, reinterpret_cast<void *>(handler));
}

} // namespace fastmq

#endif
