//! Asks the kernel which user owns the other end of a loopback connection (sock_diag(7)).
//!
//! The request names one connection exactly. An answer counts only if it is about that connection, and the connection
//! is established.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

pub(crate) mod message;

use message::{LoopbackConnection, NoOwner};

/// The time limit for the kernel. It answers while the request is sent, so this limit only matters after a kernel fault.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the user who owns the socket at `peer` of the connection between `peer` and `local`.
///
/// # Errors
/// When the kernel does not answer, or its answer is not this connection in the state "established".
pub(crate) fn owner(peer: SocketAddr, local: SocketAddr) -> io::Result<Result<u32, NoOwner>> {
    let connection = LoopbackConnection::new(peer, local);
    let socket =
        net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(KERNEL_TIMEOUT))?;
    net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    net::send(&socket, &connection.request(), SendFlags::empty())?;
    let mut answer = [0; 8 << 10];
    let (length, _) = net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    Ok(connection.owner(&answer[..length]))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn owner_of(caller: &TcpStream, server: &TcpListener) -> Result<u32, NoOwner> {
        let (accepted, _) = server.accept().unwrap();
        let found = owner(accepted.peer_addr().unwrap(), accepted.local_addr().unwrap()).unwrap();
        assert_eq!(accepted.peer_addr().unwrap().port(), caller.local_addr().unwrap().port());
        found
    }

    #[test]
    fn the_owner_of_a_loopback_connection_is_this_user() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let server = TcpListener::bind(address).unwrap();
            let caller = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            assert_eq!(owner_of(&caller, &server), Ok(rustix::process::getuid().as_raw()));
        }
    }

    #[test]
    fn a_dual_stack_socket_has_the_same_owner() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let caller = TcpStream::connect(format!("[::ffff:127.0.0.1]:{port}")).unwrap();
        assert_eq!(owner_of(&caller, &server), Ok(rustix::process::getuid().as_raw()));
    }

    #[test]
    fn a_caller_of_a_dual_stack_listener_is_found_by_either_family() {
        let server = TcpListener::bind("[::]:0").unwrap();
        let port = server.local_addr().unwrap().port();
        for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("[::ffff:127.0.0.1]:{port}")] {
            let caller = TcpStream::connect(&address).unwrap();
            assert_eq!(owner_of(&caller, &server), Ok(rustix::process::getuid().as_raw()), "{address}");
            let gone = TcpStream::connect(&address).unwrap();
            let (accepted, peer) = server.accept().unwrap();
            drop(gone);
            assert!(owner(peer, accepted.local_addr().unwrap()).unwrap().is_err(), "{address}");
        }
    }

    #[test]
    fn a_connection_that_its_owner_closed_has_no_owner() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (accepted, peer) = server.accept().unwrap();
        drop(caller);
        assert!(owner(peer, accepted.local_addr().unwrap()).unwrap().is_err());
    }
}
