// What every handle has in common: one owner, moved and not copied, closed once.
#ifndef FASTMQ_HANDLE_HPP
#define FASTMQ_HANDLE_HPP

#include <atomic>
#include <utility>

namespace fastmq::detail {

/// Owns one handle of C.
///
/// Empty when made without an argument, moved from or released: calls on an empty one fail with
/// INVALID. After close() they fail with MISUSE or CLOSED; nothing is followed that is gone.
template <class Raw, void (*Close)(Raw *)> class handle {
public:
    /// An empty one.
    constexpr handle() noexcept = default;

    /// Takes over a handle that the C functions made.
    explicit handle(Raw *raw) noexcept : raw_(raw) {}

    handle(handle &&other) noexcept : raw_(other.raw_), is_closed_(other.was_closed())
    {
        other.raw_ = nullptr;
    }

    /// Closes what it had and takes over the other's.
    handle &operator=(handle &&other) noexcept
    {
        if (this != &other) {
            close();
            raw_ = std::exchange(other.raw_, nullptr);
            is_closed_.store(other.was_closed(), std::memory_order_relaxed);
        }
        return *this;
    }

    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;

    /// Closes it.
    ~handle() { close(); }

    /// True if it is neither empty nor closed by close().
    explicit operator bool() const noexcept { return raw_ != nullptr && !was_closed(); }

    /// The handle for the C functions; it stays this object's to close.
    [[nodiscard]] Raw *get() const noexcept { return raw_; }

    /// Gives the handle away: closing it is the caller's now. NULL if it was closed.
    [[nodiscard]] Raw *release() noexcept
    {
        Raw *raw = std::exchange(raw_, nullptr);
        return was_closed() ? nullptr : raw;
    }

    /// Closes it, once however often it is called. Safe from any thread, also while others use
    /// the object (not while it is moved or destroyed): that is how a thread that waits is woken.
    void close() noexcept { close_by(Close); }

protected:
    /// Closes it by another way than the destructor's.
    template <class How> void close_by(How how) noexcept
    {
        if (raw_ != nullptr && !is_closed_.exchange(true, std::memory_order_relaxed)) {
            how(raw_);
        }
    }

private:
    bool was_closed() const noexcept { return is_closed_.load(std::memory_order_relaxed); }

    // Not set to NULL by close(): other threads may be reading it, and the library knows a handle
    // that was closed.
    Raw *raw_ = nullptr;
    std::atomic<bool> is_closed_{false};
};

} // namespace fastmq::detail

#endif
