// How long: nanoseconds that saturate.
#ifndef FASTMQ_DURATION_HPP
#define FASTMQ_DURATION_HPP

#include <fastmq.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>

namespace fastmq {

/// A time-out or another length of time, made from any std::chrono::duration.
///
/// Below zero is zero; what does not fit into 64 bits of nanoseconds is `forever`, so that
/// `std::chrono::hours::max()` is a long time and not an overflow. A fraction is cut.
class duration {
public:
    /// No time: do not wait.
    constexpr duration() noexcept = default;

    /// A length of time.
    template <class Number, class Period>
    constexpr duration(std::chrono::duration<Number, Period> time) noexcept
        : count_ns_(saturated<Number, Period>(time.count()))
    {
    }

    /// `count` nanoseconds; FASTMQ_FOREVER: without end.
    [[nodiscard]] static constexpr duration nanoseconds(std::uint64_t count) noexcept
    {
        duration made;
        made.count_ns_ = count;
        return made;
    }

    /// As C takes it.
    [[nodiscard]] constexpr std::uint64_t count_ns() const noexcept { return count_ns_; }

    /// True if it has no end.
    [[nodiscard]] constexpr bool is_forever() const noexcept { return count_ns_ == FASTMQ_FOREVER; }

    /// As the standard library takes it: at most std::chrono::nanoseconds::max().
    [[nodiscard]] constexpr std::chrono::nanoseconds chrono() const noexcept
    {
        constexpr auto most = std::chrono::nanoseconds::max();
        return count_ns_ >= static_cast<std::uint64_t>(most.count())
            ? most
            : std::chrono::nanoseconds(static_cast<std::int64_t>(count_ns_));
    }

    friend constexpr bool operator==(duration a, duration b) noexcept
    {
        return a.count_ns_ == b.count_ns_;
    }
    friend constexpr bool operator!=(duration a, duration b) noexcept { return !(a == b); }
    friend constexpr bool operator<(duration a, duration b) noexcept
    {
        return a.count_ns_ < b.count_ns_;
    }

private:
    template <class Number, class Period>
    static constexpr std::uint64_t saturated(Number count) noexcept
    {
        // Not above zero, or not a number.
        if (!(count > Number{})) {
            return 0;
        }
        using unit = std::ratio_divide<Period, std::nano>;
        constexpr auto factor = static_cast<std::uint64_t>(unit::num);
        constexpr auto divisor = static_cast<std::uint64_t>(unit::den);
        if constexpr (std::is_floating_point_v<Number>) {
            const long double total = static_cast<long double>(count)
                * static_cast<long double>(factor) / static_cast<long double>(divisor);
            return total < 18446744073709551615.0L ? static_cast<std::uint64_t>(total)
                                                   : FASTMQ_FOREVER;
        } else {
            const auto whole = static_cast<std::uint64_t>(count) / divisor;
            const auto rest = static_cast<std::uint64_t>(count) % divisor;
            const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
            if (whole >= most / factor) {
                return FASTMQ_FOREVER;
            }
            static_assert(factor <= std::numeric_limits<std::uint64_t>::max() / divisor,
                          "a unit of time that cannot be compared with nanoseconds");
            return whole * factor + rest * factor / divisor;
        }
    }

    std::uint64_t count_ns_ = 0;
};

/// A time-out that never comes.
inline constexpr duration forever = duration::nanoseconds(FASTMQ_FOREVER);

} // namespace fastmq

#endif
