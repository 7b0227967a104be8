// The library that was loaded: whether it is one that this header was made for.
#ifndef FASTMQ_LIBRARY_HPP
#define FASTMQ_LIBRARY_HPP

#include "status.hpp"

#include <cstdint>
#include <cstdio>

namespace fastmq {

/// Why the libfastmq.so that was loaded does not fit what this program was compiled with: its ABI
/// has another major number, or a lower minor one. nullptr if it fits, as a newer one of the same
/// major number does. open and connect ask, and say unsupported. The sentence is readable until
/// the next call on this thread.
[[nodiscard]] inline const char *library_fault() noexcept
{
    const std::uint32_t has = abi(), wanted = FASTMQ_ABI;
    const auto major = [](std::uint32_t number) { return static_cast<unsigned>(number >> 16); };
    const auto minor = [](std::uint32_t number) { return static_cast<unsigned>(number & 0xffff); };
    if (major(has) == major(wanted) && minor(has) >= minor(wanted)) {
        return nullptr;
    }
    static thread_local char sentence[192];
    const char *cure = major(has) != major(wanted)
        ? "compile the program with the headers of that library"
        : "install a library that is as new as the headers";
    std::snprintf(sentence, sizeof sentence,
                  "this program was compiled with ABI %u.%u of FAST MQ, and the libfastmq.so that "
                  "was loaded, %.16s, has ABI %u.%u: %s",
                  major(wanted), minor(wanted), version(), major(has), minor(has), cure);
    return sentence;
}

namespace detail {

#if FASTMQ_HAS_EXCEPTIONS
// Throws unsupported if the library does not fit.
inline void check_library()
{
    if (const char *fault = library_fault()) {
        throw error(status::unsupported, fault);
    }
}
#endif

} // namespace detail

} // namespace fastmq

#endif
