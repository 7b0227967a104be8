/// FAST MQ for C++17: a header over the C interface, with nothing to link but libfastmq.
///
///     auto mq = fastmq::open();
///     auto greetings = mq.subscribe("greet.*");
///     mq.publish("greet.world", "hello");
///     for (fastmq::message m : greetings.queue().receive()) { ... m.subject(), m.text() ... }
///
/// What holds for all of it:
///
/// - **Ownership.** client, server, publisher, queue, subscription, requester, headers and batch own
///   one handle of the library each: moved and not copied, closed by their destructor, in any order.
///   A claim is a publisher's, and does not outlive it.
///   Views (message, event, bytes_view, headers_view, queue_ref) own nothing; each says how long it
///   lives.
/// - **Errors.** Each call that can fail has two forms. `try_publish` returns a status, `try_open`
///   a result: a value or a status. `publish` and `open` throw fastmq::error for every status but
///   ok. The `try_` forms throw nothing (but what copying a callback throws), and are all there is
///   with -fno-exceptions. Calls that have no status in C (fd, id, in_flight, next_deadline,
///   subscription::queue) have one form.
/// - **Arguments.** Texts and bytes are borrowed until the call returns; the library copies what it
///   keeps.
/// - **Threads.** Const members of client may be called from any thread at the same time. Other
///   objects are used by one thread at a time, except that any thread may close() one that others
///   use. Distinct objects are independent.
/// - **Blocking.** Only what takes a time-out, and closing while a callback runs.
/// - **Cost.** That of the C call: everything is inline, and nothing allocates but a subscription
///   with a callback, for the callback.
///
/// Each class and function says the rest. docs/abi.md has the rules of the library itself.
#ifndef FASTMQ_HPP
#define FASTMQ_HPP

#include "fastmq/batch.hpp"
#include "fastmq/bytes.hpp"
#include "fastmq/callback.hpp"
#include "fastmq/claim.hpp"
#include "fastmq/client.hpp"
#include "fastmq/connect.hpp"
#include "fastmq/duration.hpp"
#include "fastmq/headers.hpp"
#include "fastmq/library.hpp"
#include "fastmq/log.hpp"
#include "fastmq/message.hpp"
#include "fastmq/options.hpp"
#include "fastmq/publisher.hpp"
#include "fastmq/queue.hpp"
#include "fastmq/reply_stream.hpp"
#include "fastmq/requester.hpp"
#include "fastmq/server.hpp"
#include "fastmq/status.hpp"
#include "fastmq/subscription.hpp"
#include "fastmq/threads.hpp"

#endif
