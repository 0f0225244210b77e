//! A process that listens on a loopback port, and ends when it is dropped.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;

/// Between two looks.
const STEP: Duration = Duration::from_millis(25);
/// How many of them a start, or an end, takes at most.
const STEPS: u32 = 400;

/// The process, which is ready.
pub(crate) struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts what `make` makes for a port, and waits until it listens there.
    pub(crate) fn start(what: &str, make: impl FnOnce(u16) -> Result<Command, Failure>) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = make(port)?;
        let server = Self { process: command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?, port };
        for _ in 0..STEPS {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(STEP);
        }
        Err(format!("{what} does not start").into())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A master takes its workers along on a TERM, and not when it is killed.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        for _ in 0..STEPS {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(STEP);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
