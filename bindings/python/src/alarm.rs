//! An alarm: what wakes an event loop of Python, one descriptor for all queues of a client.
//!
//! The engine calls a queue's waker on the thread that has something for it. That thread notes the
//! queue's number and, if nobody has since the loop looked last, writes one byte. It never waits
//! and never needs the interpreter.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use pyo3::prelude::*;

use crate::lifetime::lock;

/// Which numbers have rung, and how the loop hears of it.
struct Bell {
    numbers: Mutex<Vec<u64>>,
    sender: UnixStream,
}

/// The bell of one queue.
struct Rope {
    bell: Arc<Bell>,
    number: u64,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut numbers = lock(&self.bell.numbers);
        numbers.push(self.number);
        if numbers.len() == 1 {
            // If the socket is full, the loop has something to read.
            let _ = (&self.bell.sender).write(&[1]);
        }
    }
}

#[doc = doc!("Alarm")]
#[pyclass(frozen, module = "fastmq._fastmq")]
pub(crate) struct Alarm {
    bell: Arc<Bell>,
    receiver: UnixStream,
}

impl Alarm {
    /// What rings with this number.
    pub(crate) fn waker(&self, number: u64) -> Waker {
        let bell = self.bell.clone();
        Waker::from(Arc::new(Rope { bell, number }))
    }
}

#[pymethods]
impl Alarm {
    #[new]
    fn new() -> PyResult<Self> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Self {
            bell: Arc::new(Bell {
                numbers: Mutex::default(),
                sender,
            }),
            receiver,
        })
    }

    #[doc = doc!("Alarm.fileno")]
    fn fileno(&self) -> i32 {
        self.receiver.as_raw_fd()
    }

    #[doc = doc!("Alarm.take")]
    fn take(&self) -> Vec<u64> {
        let mut bytes = [0; 16];
        // Read first: what rings after the numbers are taken writes anew.
        let _ = (&self.receiver).read(&mut bytes);
        std::mem::take(&mut *lock(&self.bell.numbers))
    }
}
