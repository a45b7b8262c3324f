//! Tells scripts and service managers that tracing has begun.

use std::{
    env,
    fs::File,
    io::{self, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use anyhow::{Context, Result};
use nix::unistd::close;

/// Writes a line to descriptor `fd` and closes it, and notifies the service manager (sd_notify(3)): every event from
/// here on is captured.
///
/// # Errors
/// When the descriptor cannot be written to. A failed notification is not an error.
pub fn tell(fd: Option<i32>) -> Result<()> {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET") {
        let _ = notify(socket.as_bytes());
    }
    let Some(fd) = fd else { return Ok(()) };
    let written = File::options().write(true).open(format!("/proc/self/fd/{fd}")).and_then(|mut file| {
        file.write_all(b"ready\n")?;
        close(fd).map_err(io::Error::from)
    });
    written.with_context(|| format!("write to --ready-fd {fd}"))
}

fn notify(socket: &[u8]) -> io::Result<usize> {
    let address = match socket {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)
}
