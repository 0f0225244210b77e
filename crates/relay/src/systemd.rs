//! The service manager is told when the relay is ready and when it stops (sd_notify(3), without its library).

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the service manager listens, if it does.
const SOCKET: &str = "NOTIFY_SOCKET";

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Ready,
    /// On its way to the end.
    Stopping,
}

/// Tells the service manager, where there is one.
///
/// # Errors
/// `NOTIFY_SOCKET` names nothing that takes it.
pub fn notify(state: State) -> io::Result<()> {
    let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let text = match state {
        State::Ready => "READY=1\n",
        State::Stopping => "STOPPING=1\n",
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}
