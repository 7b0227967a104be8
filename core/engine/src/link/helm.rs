//! Who drives the link: whoever waits, else the link's own thread.
//!
//! A thread that waits for something of the server takes the helm and runs turns itself, so that
//! an answer passes no other thread. The link's thread rests meanwhile (`rest.rs`). It looks now
//! and then when the last turn was, and takes the helm if there was none since it looked, or for a
//! while: so callbacks, signs of life, publishes that nobody flushed and other waits are served.
//! Of a client that was opened as `polled` there is no such thread.
//!
//! Invariant: `running` is locked by the thread that drives, for as long as it does, and by nobody
//! else for longer than a look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::task::{Wake, Waker};

use fastmq_driver::sockets::{self, Sockets, Waited};
use fastmq_driver::{FOREVER_NS, LoopFd};
use fastmq_memory::allocation::try_arc;
use fastmq_memory::sync::{Mutex, MutexGuard, OnceLock, lock, try_lock};

use crate::call;
use crate::error::{Error, Fault, Result, Status};
use crate::ready::ReadyList;
use crate::threads;
use crate::wait::{Profile, Spin};

use super::drive::Drive;
use super::rest::REST_NS;
use super::uplink::Uplink;

/// How long a thread waits for the link's thread to let go.
const LETTING_GO_NS: u64 = 1_000_000;
/// How often it is looked whether anybody still holds the client.
const HELD_CHECK_NS: u64 = 10_000_000_000;
/// Publishes in [`REST_NS`] that wake the link's thread; more are gathered for as long.
const WOKEN_MAX: u32 = 8;

/// What is driven.
pub(super) struct Running {
    pub(super) drive: Drive,
    pub(super) sockets: Box<dyn Sockets + Send>,
}

/// Who drives, and who wants to.
#[derive(Default)]
pub(crate) struct Helm {
    pub(super) running: Mutex<Option<Running>>,
    /// Whether there is something to drive: not in a simulation, and not after the end.
    is_open: AtomicBool,
    /// The thread that drives; 0: none.
    pub(super) thread: AtomicU64,
    is_with_link: AtomicBool,
    /// Threads for which the link's thread is to let go, and what it then changes.
    wanted: AtomicU32,
    freed: AtomicU32,
    /// When the last turn was.
    pub(super) turned_ns: AtomicU64,
    /// What the link's thread rests on, and how; see `rest`.
    pub(super) rest: AtomicU32,
    pub(super) resting: AtomicU8,
    /// Threads that wait while another one drives.
    pub(super) parked: AtomicU32,
    /// The link's thread rests for long: who parks calls it.
    pub(super) rests_long: AtomicBool,
    /// Publishes wake nobody: the link's thread looks every [`REST_NS`].
    pub(super) gathers: AtomicBool,
    /// Publishes that have woken it.
    pub(super) woken: AtomicU32,
    /// Wakes whoever drives.
    pub(super) caller: OnceLock<Arc<Caller>>,
    /// The same as a task.
    task: OnceLock<Waker>,
    /// The descriptor that is readable while a turn would find something.
    fd: OnceLock<i32>,
    /// When a turn is due, of a client without a thread for it.
    due_ns: AtomicU64,
}

/// Has the thread that drives look again.
pub(crate) struct Caller {
    has_called: AtomicBool,
    waker: sockets::Waker,
}

impl Caller {
    fn call(&self) {
        self.has_called.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Before what the caller waits for is looked at.
    pub(crate) fn listen(&self) {
        self.has_called.store(false, Ordering::SeqCst);
    }
}

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        self.call();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.call();
    }
}

/// The right to drive, until it is dropped.
pub(crate) struct AtHelm<'u> {
    uplink: &'u Uplink,
    running: Option<MutexGuard<'u, Option<Running>>>,
}

impl Helm {
    /// Whether a thread that waits may be able to drive.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Something that whoever drives was to look at has happened.
    pub(super) fn has_called(&self) -> bool {
        let is_wanted = self.is_with_link.load(Ordering::Relaxed) && self.is_wanted();
        is_wanted
            || self
                .caller
                .get()
                .is_some_and(|caller| caller.has_called.load(Ordering::SeqCst))
    }

    /// Calls whoever drives; `None` in a simulation.
    fn task(&self) -> Option<&Waker> {
        self.task.get()
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > 0
    }
}

impl Uplink {
    /// From now on threads may drive; one of its own does, unless the client is polled.
    pub(super) fn launch(
        self: &Arc<Self>,
        mut drive: Drive,
        sockets: Box<dyn Sockets + Send>,
    ) -> Result<()> {
        let caller = Caller {
            has_called: AtomicBool::new(false),
            waker: sockets.waker(),
        };
        let _ = self.waker.set(sockets.waker());
        let helm = &self.helm;
        let caller = try_arc(caller)?;
        let task = Waker::from(caller.clone());
        if !self.options.polled {
            // Of a polled client nobody would come at once.
            drive.call_for_room(&task);
        }
        let _ = helm.task.set(task);
        let _ = helm.caller.set(caller);
        let _ = helm.fd.set(sockets.fd());
        *lock(&helm.running) = Some(Running { drive, sockets });
        helm.is_open.store(true, Ordering::SeqCst);
        if self.options.polled {
            return Ok(());
        }
        let options = self.options.broker.threads;
        let uplink = self.clone();
        let started = threads::start(&self.driver, &options, ("link", 0), move || uplink.run());
        if let Err(error) = started {
            helm.is_open.store(false, Ordering::SeqCst);
            let running = lock(&helm.running).take();
            drop(running);
            return Err(error);
        }
        Ok(())
    }

    /// The right to drive if nobody has it; the link's thread is asked for it, which takes a
    /// millisecond at most, and not longer than until `deadline_ns`.
    pub(crate) fn take_helm(&self, deadline_ns: u64) -> Option<AtHelm<'_>> {
        let helm = &self.helm;
        let held = self.try_helm();
        if held.is_some()
            || deadline_ns == 0
            || !helm.is_with_link.load(Ordering::SeqCst)
            || self.is_here()
        {
            return held;
        }
        helm.wanted.fetch_add(1, Ordering::SeqCst);
        let seen = helm.freed.load(Ordering::SeqCst);
        let mut held = self.try_helm();
        if held.is_none() {
            self.wake();
            let until_ns = self.driver.monotonic_ns() + LETTING_GO_NS;
            self.driver
                .park(&helm.freed, seen, deadline_ns.min(until_ns));
            held = self.try_helm();
        }
        helm.wanted.fetch_sub(1, Ordering::SeqCst);
        held
    }

    /// The right to drive if nobody has it now.
    pub(crate) fn try_helm(&self) -> Option<AtHelm<'_>> {
        if !self.helm.is_open() {
            return None;
        }
        let running = try_lock(&self.helm.running)?;
        if running.is_none() {
            return None;
        }
        self.helm
            .thread
            .store(call::thread_number(), Ordering::Relaxed);
        Some(AtHelm {
            uplink: self,
            running: Some(running),
        })
    }

    /// What the link's own thread does.
    fn run(&self) {
        let helm = &self.helm;
        let profile = self.options.broker.wait;
        let may_spin = self.driver.may_spin() && profile != Profile::LowPower;
        let spin = Spin::default();
        while helm.is_open() {
            helm.is_with_link.store(true, Ordering::SeqCst);
            let Some(mut held) = self.try_helm() else {
                helm.is_with_link.store(false, Ordering::SeqCst);
                self.rest();
                continue;
            };
            let mut since_ns = 0;
            loop {
                let budget_ns = match may_spin && held.is_connected() {
                    true => spin.budget_ns(profile),
                    false => 0,
                };
                let gathers = self.is_busy(&mut since_ns);
                if let Some(caller) = helm.caller.get() {
                    caller.listen();
                }
                let before_ns = helm.turned_ns.load(Ordering::Relaxed);
                let waited = match gathers {
                    true => held.drive(REST_NS, 0),
                    false => held.drive(HELD_CHECK_NS, budget_ns),
                };
                match waited {
                    None => break,
                    Some(Waited::Spun) => spin.learn(true),
                    Some(Waited::Slept) if budget_ns > 0 => {
                        let now_ns = helm.turned_ns.load(Ordering::Relaxed);
                        spin.learn_late(now_ns.saturating_sub(before_ns));
                    }
                    Some(_) => {}
                }
                if helm.is_wanted() {
                    break;
                }
            }
            helm.gathers.store(false, Ordering::SeqCst);
            helm.is_with_link.store(false, Ordering::SeqCst);
            drop(held);
            helm.freed.fetch_add(1, Ordering::SeqCst);
            self.driver.wake(&helm.freed, u32::MAX);
            self.rest();
        }
    }

    /// Whether publishes come so fast that waking the link's thread for them does not pay.
    fn is_busy(&self, since_ns: &mut u64) -> bool {
        let helm = &self.helm;
        let gathers = helm.gathers.load(Ordering::Relaxed);
        let now_ns = self.driver.monotonic_ns();
        if now_ns.saturating_sub(*since_ns) >= REST_NS {
            let woken = helm.woken.swap(0, Ordering::Relaxed);
            *since_ns = now_ns;
            let is_busy = woken > WOKEN_MAX;
            helm.gathers.store(is_busy, Ordering::SeqCst);
            return is_busy;
        }
        gathers
    }

    /// Much is to be sent: whoever adds to it sends it, if nobody drives.
    #[cold]
    #[inline(never)]
    pub(super) fn press(&self) {
        match self.try_helm() {
            Some(mut held) => held.send(),
            None => {
                self.has_work.store(true, Ordering::SeqCst);
                self.wake();
                self.call_napping();
            }
        }
    }

    /// Waits for a change of `answered`, or drives for it.
    pub(super) fn wait_answer(&self, seen: u32, deadline_ns: u64) {
        if let Some(mut held) = self.take_helm(deadline_ns) {
            held.listen();
            // What was answered before was answered by whoever drove.
            if self.answered.load(Ordering::SeqCst) == seen {
                let now_ns = self.driver.monotonic_ns();
                held.turn(deadline_ns.saturating_sub(now_ns), 0);
            }
            return;
        }
        self.park(&self.answered, seen, deadline_ns);
    }

    /// Of a client that only its own calls drive.
    pub(crate) fn is_polled(&self) -> bool {
        self.options.polled && self.helm.is_open()
    }

    /// A turn of the user's loop.
    pub(crate) fn dispatch(&self) {
        if let Some(mut held) = self.try_helm() {
            held.turn(0, 0);
        }
    }

    /// Sends what was added since, if nobody drives. What is left then waits for the socket, or is
    /// told to the loop.
    pub(crate) fn send_added(&self) {
        if self.has_work()
            && let Some(mut held) = self.try_helm()
        {
            held.send_added();
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.has_work.load(Ordering::SeqCst)
    }

    /// When a turn is due, though nothing may have come.
    pub(crate) fn due_ns(&self) -> u64 {
        self.helm.due_ns.load(Ordering::Relaxed)
    }

    /// From now on the loop hears of what has come and of what is to be sent.
    pub(crate) fn join_loop(&self, list: &Arc<ReadyList>, fd: &LoopFd) -> Result<()> {
        let _ = self.polled.set(list.clone());
        let Some(sockets) = self.helm.fd.get() else {
            return Ok(());
        };
        fd.include(*sockets).map_err(|error| {
            let fault = &Fault(Status::Io, "cannot watch the connection");
            Error::with_io(fault, fault.1, &error)
        })?;
        // What was published before has told nobody.
        if self.has_work() {
            list.wake();
        }
        Ok(())
    }

    /// Parks; not for long if nobody might drive.
    pub(crate) fn park(&self, word: &AtomicU32, seen: u32, deadline_ns: u64) {
        let mut until_ns = deadline_ns;
        if self.options.polled {
            until_ns = until_ns.min(self.driver.monotonic_ns() + LETTING_GO_NS);
        }
        self.helm.parked.fetch_add(1, Ordering::SeqCst);
        self.call_for_parked();
        self.driver.park(word, seen, until_ns);
        self.helm.parked.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<'u> AtHelm<'u> {
    /// What has this thread look again, while it drives.
    pub(crate) fn caller(&self) -> Result<(&'u Caller, &'u Waker)> {
        let helm = &self.uplink.helm;
        let caller = helm.caller.get().zip(helm.task());
        caller
            .map(|(caller, task)| (&**caller, task))
            .ok_or(Error::CLOSED)
    }

    /// Earlier calls are of no interest to this thread: else its next turn would not wait.
    pub(crate) fn listen(&self) {
        if let Some(caller) = self.uplink.helm.caller.get() {
            caller.listen();
        }
    }

    /// Sends, waits for something to happen, for at most `max_ns`, and deals with it; false: the
    /// link has ended.
    pub(crate) fn turn(&mut self, max_ns: u64, spin_ns: u64) -> bool {
        self.drive(max_ns, spin_ns).is_some()
    }

    fn running(&mut self) -> Option<&mut Running> {
        self.running.as_deref_mut()?.as_mut()
    }

    fn drive(&mut self, max_ns: u64, spin_ns: u64) -> Option<Waited> {
        let Running { drive, sockets } = self.running.as_deref_mut()?.as_mut()?;
        if drive.is_over() {
            return None;
        }
        match drive.turn(&mut **sockets, max_ns, spin_ns) {
            Ok(waited) => Some(waited),
            Err(error) => {
                let fault = &Fault(Status::Io, "the sockets of the link have failed");
                drive.fail_for_good(&Error::with_io(fault, fault.1, &error));
                None
            }
        }
    }

    fn is_connected(&mut self) -> bool {
        self.running()
            .is_some_and(|running| running.drive.is_connected())
    }

    /// Sends what was added since, if anything was.
    #[inline]
    pub(crate) fn send_added(&mut self) {
        if self.uplink.has_work() {
            self.send();
        }
    }

    /// Sends what waits, and nothing else.
    pub(crate) fn send(&mut self) {
        if let Some(Running { drive, sockets }) = self.running() {
            drive.send_now(&mut **sockets);
        }
    }
}

impl Drop for AtHelm<'_> {
    fn drop(&mut self) {
        let (uplink, polled) = (self.uplink, self.uplink.options.polled);
        let helm = &uplink.helm;
        if polled {
            // Nobody comes by to send what the last turn has left, or to say goodbye.
            self.send();
            while uplink.is_closed_here.load(Ordering::Relaxed)
                && self.drive(FOREVER_NS, 0).is_some()
            {
                self.listen();
            }
        }
        let Some(mut running) = self.running.take() else {
            return;
        };
        let mut can_send = false;
        if polled
            && let Some(Running { drive, .. }) = running.as_ref()
            && !drive.is_over()
        {
            can_send = drive.can_send();
            let due_ns = drive.due_ns();
            helm.due_ns.store(due_ns, Ordering::Relaxed);
            let fd = uplink.polled.get().and_then(|list| list.existing_fd());
            if let Some(fd) = fd
                && due_ns != FOREVER_NS
            {
                fd.set_deadline(Some(due_ns));
            }
        }
        let is_over = running
            .as_ref()
            .is_some_and(|running| running.drive.is_over());
        let mut ended = None;
        if is_over {
            ended = running.take();
            helm.is_open.store(false, Ordering::SeqCst);
        }
        helm.thread.store(0, Ordering::Relaxed);
        drop(running);
        fence(Ordering::SeqCst);
        if can_send
            && uplink.has_work()
            && let Some(list) = uplink.polled.get()
        {
            // Added since it was sent: whoever looked for it meanwhile could not drive.
            list.wake();
        }
        uplink.let_go(is_over);
        // Its queues and the broker may go with it: not under the lock.
        drop(ended);
    }
}
