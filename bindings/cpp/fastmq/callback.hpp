// Callbacks: any callable behind the function and context of C, and what happens when it throws.
#ifndef FASTMQ_CALLBACK_HPP
#define FASTMQ_CALLBACK_HPP

#include "duration.hpp"
#include "message.hpp"
#include "status.hpp"

#include <atomic>
#include <chrono>
#include <exception>
#include <new>
#include <type_traits>
#include <utility>

namespace fastmq {

#if FASTMQ_HAS_EXCEPTIONS
/// Gets an exception that left a callback, and the message that the callback had, which is
/// readable until it returns; an empty one if the callback was told of an event. It may run on any
/// thread, and must not throw.
using exception_handler = void (*)(std::exception_ptr, message);

namespace detail {
inline std::atomic<exception_handler> on_exception{nullptr};

// Cold and out of line: the call itself stays small.
#if defined(__GNUC__)
[[gnu::cold, gnu::noinline]]
#endif
inline void
report(message got) noexcept
{
    const exception_handler handler = on_exception.load();
    if (handler == nullptr) {
        std::terminate();
    }
    handler(std::current_exception(), got);
}
} // namespace detail

/// Sets what gets the exceptions that leave callbacks; one for the process. An exception cannot
/// travel through the library, which is no C++: without a handler std::terminate is called, as for
/// an exception that leaves a thread; with one the exception ends there and the message counts as
/// delivered. Gives the handler that was set before. Safe from any thread.
inline exception_handler set_exception_handler(exception_handler handler) noexcept
{
    return detail::on_exception.exchange(handler);
}
#endif

namespace detail {

/// A callable on the heap, and the calls of it that this thread is in.
///
/// The difficulty is an end from inside: a callback may destroy its own subscription, and its
/// captures must live until it has returned. A callable that is a plain value (`is_plain_v`) is
/// called as a copy on the stack, which costs nothing. Each call of another one stands in a list of
/// its thread; whoever ends the callback looks there, and leaves the freeing to the outermost call.
class callback {
public:
    callback(const callback &) = delete;
    callback &operator=(const callback &) = delete;

    /// Frees it once no call of it is under way on this thread. On others there is none: the
    /// subscription has ended.
    void end() noexcept { end_(this); }

    /// Keeps it for ever, as a call of it may still run on another thread: in a list, so that tools
    /// that look for leaks find it.
    void abandon() noexcept
    {
        next_abandoned_ = abandoned.load();
        while (!abandoned.compare_exchange_weak(next_abandoned_, this)) {
        }
    }

protected:
    /// Calls `function`; an exception ends here, and `got` is what its handler gets.
    template <class Callable, class Argument>
    static void run(Callable &function, const Argument &argument, message got) noexcept
    {
#if FASTMQ_HAS_EXCEPTIONS
        try {
            function(argument);
        } catch (...) {
            report(got);
        }
#else
        (void)got;
        function(argument);
#endif
    }

    /// One call that is under way.
    struct call {
        const callback *of;
        call *outer;
        bool is_last;
    };

    explicit callback(void (*ender)(callback *) noexcept) noexcept : end_(ender) {}
    ~callback() = default;

    /// The innermost call on this thread. Reached by code of the same translation unit as the
    /// calls only (through `end_`), so that a library that hides its symbols has its own list.
    static inline thread_local call *innermost = nullptr;

    /// If calls of `self` are under way on this thread, tells the outermost that it is the last.
    static bool leave_to_outermost(const callback *self) noexcept
    {
        call *outermost = nullptr;
        for (call *at = innermost; at != nullptr; at = at->outer) {
            outermost = at->of == self ? at : outermost;
        }
        if (outermost != nullptr) {
            outermost->is_last = true;
        }
        return outermost != nullptr;
    }

private:
    static inline std::atomic<callback *> abandoned{nullptr};

    void (*end_)(callback *) noexcept;
    callback *next_abandoned_ = nullptr;
};

/// Closes by `close`, which waits for a callback that runs for at most `close_timeout`, and ends the
/// callback; after a wait of the full time it may still run: better its memory stays.
template <class Close>
void close_with(callback &called, duration close_timeout, Close close) noexcept
{
    const auto start = std::chrono::steady_clock::now();
    close();
    const duration waited = std::chrono::steady_clock::now() - start;
    if (waited < close_timeout) {
        called.end();
    } else {
        called.abandon();
    }
}

// Lambdas that capture references, pointers and numbers: a copy of it does what it does.
template <class Function>
inline constexpr bool is_plain_v = std::is_trivially_copyable_v<Function>
    && std::is_copy_constructible_v<Function> && std::is_invocable_v<const Function &, message>
    && sizeof(Function) <= 64;

template <class Function> class callback_of final : public callback {
public:
    template <class From>
    explicit callback_of(From &&function)
        : callback(end_this), function_(std::forward<From>(function))
    {
    }

    /// The function for C; `context` is a callback_of.
    static void on_message(const fastmq_message *raw, void *context) noexcept
    {
        auto *self = static_cast<callback_of *>(context);
        if constexpr (is_plain_v<Function>) {
            const Function copy = self->function_;
            run(copy, message(*raw), message(*raw));
        } else {
            call here{self, innermost, false};
            innermost = &here;
            run(self->function_, message(*raw), message(*raw));
            innermost = here.outer;
            if (here.is_last) {
                delete self;
            }
        }
    }

private:
    static void end_this(callback *self) noexcept
    {
        // Calls of a plain one are in no list: they use their copies.
        if (!leave_to_outermost(self)) {
            delete static_cast<callback_of *>(self);
        }
    }

    Function function_;
};

} // namespace detail

} // namespace fastmq

#endif
