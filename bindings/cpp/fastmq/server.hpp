// A broker that other processes use.
#ifndef FASTMQ_SERVER_HPP
#define FASTMQ_SERVER_HPP

#include "bytes.hpp"
#include "duration.hpp"
#include "handle.hpp"
#include "queue.hpp"
#include "status.hpp"
#include "threads.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fastmq {

/// A server answers a request of its client to this subject with what it does, as a JSON object: its
/// sums, its connections, those that are slow, its patterns. Elsewhere it is denied.
inline constexpr std::string_view subject_stats = FASTMQ_SUBJECT_STATS;

/// How a broker listens; 0 is the default.
struct listen_options {
    /// What clients must know, at most 4,096 bytes; copied; empty: nothing.
    std::string_view token = {};
    /// What the server is called, at most 255 bytes; copied.
    std::string_view name = {};
    /// Whether it may listen at addresses that other machines reach, where its bytes, the token
    /// too, can be read by others.
    bool insecure = false;
    /// Threads that serve connections, at most 64; each connection has one of them; 0: 1.
    std::uint32_t shards = 0;
    /// Connections at once, of all its threads together; 0: 65,536.
    std::uint32_t connections_max = 0;
    /// Subscriptions of one connection; 0: 4,096.
    std::uint32_t subscriptions_max = 0;
    /// How its threads wait.
    fastmq::wait wait = fastmq::wait::balanced;
    /// What its threads are.
    thread_options thread = {};
    /// Sockets that listen already, which a service manager has made, to accept at beside the URLs:
    /// descriptors, borrowed and duplicated. Their files are left alone.
    const std::int32_t *sockets = nullptr;
    /// How many.
    std::size_t sockets_count = 0;
    /// Where else its clients may connect: URLs with commas between them, at most 4,096 bytes;
    /// copied. They are told when they connect and when this server drains, and try those, too,
    /// when it is gone.
    std::string_view servers = {};
};

namespace detail {

/// `thread` outlives what is made of it.
inline fastmq_listen_options to_raw(const listen_options &options,
                                    const fastmq_thread_options &thread) noexcept
{
    fastmq_listen_options wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.flags = options.insecure ? FASTMQ_LISTEN_INSECURE : 0U;
    wanted.token = to_bytes(options.token);
    wanted.name = to_bytes(options.name);
    wanted.shards = options.shards;
    wanted.connections_max = options.connections_max;
    wanted.subscriptions_max = options.subscriptions_max;
    wanted.wait = static_cast<std::uint32_t>(options.wait);
    wanted.thread = &thread;
    wanted.sockets = options.sockets;
    wanted.sockets_count = options.sockets_count;
    wanted.servers = to_bytes(options.servers);
    return wanted;
}

inline void close_server(fastmq_server *raw) noexcept { fastmq_server_close(raw, 0); }
} // namespace detail

/// A broker that other processes use: client::listen. Used from any thread at the same time. The
/// destructor and close() end it at once, with a word to each client; so does closing the client.
class server : public detail::handle<fastmq_server, detail::close_server> {
public:
    using handle::close;
    using handle::handle;

    /// Takes no more connections, asks the clients to finish, and closes when they have gone or
    /// after `timeout`. Blocks until then, and some seconds more at most for the last bytes.
    void close(duration timeout) noexcept
    {
        close_by([timeout](fastmq_server *raw) { fastmq_server_close(raw, timeout.count_ns()); });
    }

    /// Takes over the token and the subscriptions_max of `options`, for who connects and what is
    /// subscribed from now on; the others are not looked at. Connections stay as they are.
    /// Statuses: ok, invalid, closed, no_memory, misuse.
    status try_change(const listen_options &options) const noexcept
    {
        const auto thread = detail::to_raw(options.thread);
        const auto wanted = detail::to_raw(options, thread);
        return detail::to_status(fastmq_server_change(get(), &wanted));
    }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_change; throws error.
    void change(const listen_options &options) const { detail::check(try_change(options)); }
#endif

    /// The URL of the address with this index, in the order of client::listen; it ends with a zero,
    /// and lives until the server is closed. nullptr behind the last one, and on failure
    /// (last_error says why).
    [[nodiscard]] const char *url(std::size_t index = 0) const noexcept
    {
        return fastmq_server_url(get(), index);
    }
};

} // namespace fastmq

#endif
