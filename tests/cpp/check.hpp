// What the C++ tests share beside the checks of the C tests: statuses, expected exceptions, waiting
// for another thread, and a log that must stay empty.
#ifndef FASTMQ_TESTS_CHECK_HPP
#define FASTMQ_TESTS_CHECK_HPP

#include "../c/check.h"

#include <fastmq.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>

using namespace std::chrono_literals;

// How long a test waits for what must come: never reached unless something is broken.
inline constexpr auto patience = 30s;
// The smallest ring that docs/formats.md §2 allows.
inline constexpr std::uint64_t small_capacity = 4096;

// One promise about the status that a call gives.
#define CHECK_SAYS(call, expected, name) \
    check_status(static_cast<std::uint32_t>(call), \
                 static_cast<std::uint32_t>(fastmq::status::expected), (name), __FILE__, __LINE__)

#if FASTMQ_HAS_EXCEPTIONS
// One promise about the status of the error that a call throws.
#define CHECK_THROWS(call, expected, name) \
    do { \
        auto thrown = fastmq::status::ok; \
        try { \
            (void)(call); \
        } catch (const fastmq::error &failure) { \
            thrown = failure.status(); \
        } \
        CHECK_SAYS(thrown, expected, (name)); \
    } while (false)
#endif

// A number that only grows, and can be waited for.
class gate {
public:
    void add(std::uint64_t more = 1)
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        count_ += more;
        changed_.notify_all();
    }

    // False when patience ends before the gate has reached `count`.
    bool wait(std::uint64_t count)
    {
        std::unique_lock<std::mutex> lock(mutex_);
        return changed_.wait_for(lock, patience, [&] { return count_ >= count; });
    }

    std::uint64_t count()
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        return count_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::uint64_t count_ = 0;
};

// The library writes a warning when a handle is closed that was closed before: lines are counted.
inline std::atomic<unsigned> log_lines{0};

inline void count_log_lines()
{
    fastmq::set_log(fastmq::log_level::warn,
                    [](fastmq::log_level, std::string_view target, std::string_view text) {
                        std::printf("# log: %.*s: %.*s\n", static_cast<int>(target.size()),
                                    target.data(), static_cast<int>(text.size()), text.data());
                        ++log_lines;
                    });
}

// Whether an object counts among the living: for captures that must be destroyed once.
class counted {
public:
    explicit counted(std::atomic<int> &living) : living_(&living) { ++*living_; }
    counted(const counted &other) : living_(other.living_) { ++*living_; }
    counted &operator=(const counted &) = delete;
    ~counted() { --*living_; }

private:
    std::atomic<int> *living_;
};

#endif
