// Arguments: what bytes and lists are made from, and durations that saturate.
/* flags: -std=c++20 */
/* valgrind */
#include "check.hpp"

#include <array>
#include <cstddef>
#include <limits>
#include <random>
#include <ratio>
#include <string>
#include <type_traits>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

using fastmq::bytes_view;
using fastmq::duration;

// What is no bytes is refused while compiling.
static_assert(!std::is_constructible_v<bytes_view, std::nullptr_t>);
static_assert(!std::is_constructible_v<bytes_view, int>);
static_assert(!std::is_constructible_v<bytes_view, std::vector<int>>);
static_assert(!std::is_constructible_v<bytes_view, std::vector<bool>>);
static_assert(!std::is_constructible_v<bytes_view, std::array<bool, 2>>);
static_assert(!std::is_convertible_v<bytes_view, fastmq::outgoing>);

static void sources()
{
    const std::string string("a\0b", 3);
    const std::vector<unsigned char> vector{1, 2, 3};
    const std::array<std::byte, 2> array{std::byte{1}, std::byte{2}};
    const unsigned char plain[4] = {1, 2, 3, 4};
    const char text[8] = "abc";
    CHECK_NUMBER(bytes_view("hello").size(), 5, "a literal is its text without the zero");
    CHECK_NUMBER(bytes_view(text).size(), 3, "so is an array of characters");
    CHECK_NUMBER(bytes_view(string).size(), 3, "a string may have zeros inside");
    CHECK_NUMBER(bytes_view(std::string_view(string)).size(), 3, "so may a view");
    CHECK(bytes_view(vector).size() == 3 && bytes_view(vector).data() == vector.data(),
          "a vector of bytes is looked at in place");
    CHECK_NUMBER(bytes_view(array).size(), 2, "an array of std::byte has bytes");
    CHECK_NUMBER(bytes_view(plain).size(), 4, "so has an array of unsigned char");
    CHECK(bytes_view().empty() && bytes_view("").empty(), "there may be no bytes");
    CHECK(bytes_view("abc") == std::string("abc") && bytes_view("abc") != bytes_view("abd"),
          "bytes compare");
    CHECK(bytes_view("abc") != bytes_view("ab") && bytes_view("ab") != bytes_view("abc")
              && bytes_view() == bytes_view(""),
          "their size counts");
    CHECK(bytes_view(vector)[2] == 3, "each byte can be read");
    unsigned sum = 0;
    for (const auto byte : bytes_view(plain)) {
        sum += byte;
    }
    CHECK_NUMBER(sum, 10, "and all of them in a loop");
    CHECK(bytes_view("abc").text() == "abc", "bytes can be read as text");
#if __cplusplus >= 202002L
    const std::span<const std::byte> span(array);
    CHECK_NUMBER(bytes_view(span).size(), 2, "a span has bytes");
    CHECK_NUMBER(std::span<const std::uint8_t>(bytes_view("abc")).size(), 3, "and bytes a span");
#endif
}

static void objects()
{
    struct point {
        std::int32_t x, y;
    };
    const point sent{3, -4};
    const bytes_view bytes = fastmq::bytes_of(sent);
    CHECK_NUMBER(bytes.size(), sizeof sent, "an object has bytes");
    const auto got = bytes.as<point>();
    CHECK(got && got->x == 3 && got->y == -4, "and they make an equal one");
    CHECK(!bytes.as<std::uint32_t>() && !bytes_view().as<char>(), "of the right size only");
    // At every alignment.
    unsigned char shifted[sizeof sent + 1];
    std::memcpy(shifted + 1, bytes.data(), bytes.size());
    CHECK(bytes_view(shifted + 1, sizeof sent).as<point>()->y == -4, "wherever they stand");
}

static std::size_t count(fastmq::list_view<bytes_view> list) { return list.size(); }

static void lists()
{
    const std::vector<bytes_view> vector{"a", "b"};
    const bytes_view plain[] = {"a", "b", "c"};
    CHECK_NUMBER(count(vector), 2, "a vector is a list");
    CHECK_NUMBER(count(plain), 3, "an array is a list");
    CHECK_NUMBER(count({"a", "b", "c", "d"}), 4, "braces make a list");
    CHECK_NUMBER(count({vector.data(), 1}), 1, "so do a pointer and a size");
}

// The same in 128 bits.
template <class Period> static std::uint64_t model(std::int64_t count)
{
    using unit = std::ratio_divide<Period, std::nano>;
    __extension__ using wide = __int128;
    if (count <= 0) {
        return 0;
    }
    const wide total = static_cast<wide>(count) * unit::num / unit::den;
    return total >= static_cast<wide>(FASTMQ_FOREVER) ? FASTMQ_FOREVER
                                                      : static_cast<std::uint64_t>(total);
}

template <class Period> static unsigned differences(std::mt19937_64 &random)
{
    unsigned wrong = 0;
    for (int i = 0; i < 1000; i++) {
        // Every size of number, not only large ones.
        const auto value = static_cast<std::int64_t>(random() >> (random() % 64))
            * (random() % 4 == 0 ? -1 : 1);
        const duration made = std::chrono::duration<std::int64_t, Period>(value);
        wrong += made.count_ns() != model<Period>(value);
    }
    return wrong;
}

static void durations()
{
    CHECK_NUMBER(duration(5s).count_ns(), 5000000000, "seconds are nanoseconds");
    CHECK_NUMBER(duration(3us).count_ns(), 3000, "microseconds, too");
    CHECK_NUMBER(duration(-1s).count_ns(), 0, "below zero is zero");
    CHECK_NUMBER(duration(std::chrono::duration<double>(0.5)).count_ns(), 500000000,
                 "a fraction of a second is one");
    CHECK_NUMBER(duration(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN()))
                     .count_ns(), 0, "no number is zero");
    CHECK(duration(std::chrono::duration<double>(1e300)).is_forever()
              && duration(std::chrono::hours::max()).is_forever(),
          "what does not fit is for ever");
    CHECK(fastmq::forever.count_ns() == FASTMQ_FOREVER, "for ever is C's");
    CHECK(fastmq::forever.chrono() == std::chrono::nanoseconds::max()
              && duration(2s).chrono() == 2s,
          "the standard library's form saturates");
    CHECK(duration(1s) < duration(2s) && duration(1s) == duration(1000ms)
              && duration(1s) != duration(1ms), "durations compare");
    const auto seed = std::random_device{}();
    std::mt19937_64 random(seed);
    std::printf("# seed %u\n", seed);
    unsigned wrong = differences<std::ratio<3600>>(random) + differences<std::ratio<1>>(random);
    wrong += differences<std::nano>(random) + differences<std::pico>(random);
    wrong += differences<std::ratio<1, 60>>(random);
    CHECK_NUMBER(wrong, 0, "every length of every unit is what 128 bits say");
}

int main()
{
    check_begin();
    sources();
    objects();
    lists();
    durations();
    return check_end();
}
