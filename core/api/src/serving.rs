//! A client that listens: other processes use its broker by the native protocol.

use fastmq_engine::server::{self, Changes as ServerChanges, ServerOptions};
use fastmq_engine::{Result, url};

use crate::client::Client;

/// A broker that listens. Dropping it closes it at once.
///
/// It keeps the client open; close it before the client, so that its connections can finish.
#[derive(Debug)]
pub struct Server {
    server: server::Server,
    urls: Vec<String>,
}

impl Client {
    /// Serves other processes at `urls`, on threads of its own (one by default): `unix:PATH`,
    /// `shm:NAME` or `shm:/PATH`, and `tcp://HOST:PORT`, where HOST is an IP address or
    /// `localhost`, and port 0 takes a free one.
    ///
    /// Local and remote users see one another. A Unix socket is for this user alone (mode 0600);
    /// a socket file that nobody answers at is replaced. Returns when it listens.
    ///
    /// `shm:` is a Unix socket whose clients share memory with this process, 8 MiB each: NAME is in
    /// `$WORK_ROOT`, else in `$XDG_RUNTIME_DIR/fastmq`, else in a directory of this user's own
    /// under the temporary directory. That directory is made if it is missing; it must be this
    /// user's and nobody else may write to it.
    ///
    /// ```
    /// # fn main() -> fastmq::Result<()> {
    /// # let client = fastmq::Client::open(fastmq::Options::default())?;
    /// let server = client.listen(&["tcp://127.0.0.1:0"], fastmq::ServerOptions::default())?;
    /// assert!(server.urls()[0].starts_with("tcp://127.0.0.1:"));
    /// server.close(1_000_000_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// INVALID: a URL, no URL and no socket, a name above 255 bytes, a token above 4,096, or no
    /// shard or more than [`SHARDS_MAX`](crate::SHARDS_MAX). DENIED: other machines would reach it,
    /// and `is_insecure_allowed` is not set. UNSUPPORTED: this is a client of another server. IO:
    /// an address is in use, others can change the directory of a named socket, or the system
    /// refuses. CLOSED, NO_MEMORY.
    pub fn listen(&self, urls: &[&str], options: ServerOptions) -> Result<Server> {
        let addresses: Result<Vec<_>> = urls.iter().map(|url| url::listener(url)).collect();
        let server = server::Server::listen(self.broker(), &addresses?, options)?;
        let addresses = server.addresses().iter().enumerate();
        let urls = addresses.map(|(at, address)| match urls.get(at) {
            Some(url) if url.starts_with("shm:") => (*url).to_owned(),
            _ => address.to_string(),
        });
        Ok(Server {
            urls: urls.collect(),
            server,
        })
    }
}

impl Server {
    /// Where it listens, in the order in which it was asked.
    pub fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    /// Takes over a token and a limit, without a break for those who are connected.
    ///
    /// # Errors
    /// INVALID: a token above 4,096 bytes.
    pub fn change(&self, changes: &ServerChanges) -> Result<()> {
        self.server.change(changes)
    }

    /// Takes no more connections, asks the clients to finish, and closes when they have gone or
    /// after `timeout_ns`. Blocks until then, and some seconds more at most for the last bytes.
    pub fn close(self, timeout_ns: u64) {
        self.server.close(timeout_ns);
    }
}
