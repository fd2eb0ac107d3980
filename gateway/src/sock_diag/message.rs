//! The messages of sock_diag(7): one request, one answer.
//!
//! PURE. Layouts: `struct nlmsghdr` (netlink(7)), `struct inet_diag_req_v2` and `struct inet_diag_msg` (sock_diag(7)).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;

const HEADER_LENGTH: usize = 16;
const REQUEST_LENGTH: usize = 72;
const ANSWER_LENGTH: usize = HEADER_LENGTH + 72;

/// A TCP connection, seen from its caller. IPv4-mapped addresses count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopbackConnection {
    caller: SocketAddr,
    server: SocketAddr,
}

/// The reason why the owner of a connection is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoOwner {
    #[error("the kernel does not know this connection (errno {0}); is the caller in another network namespace?")]
    Unknown(i32),
    #[error("the kernel's answer cannot be read")]
    Malformed,
    /// The answer describes another socket, such as a listening one.
    #[error("the kernel describes another socket")]
    OtherSocket,
    #[error("the caller has closed its end")]
    Closed,
}

impl LoopbackConnection {
    /// Describes the connection between a caller and the address that accepted it.
    #[must_use]
    pub(crate) fn new(caller: SocketAddr, server: SocketAddr) -> Self {
        Self { caller: canonical(caller.ip(), caller.port()), server: canonical(server.ip(), server.port()) }
    }

    /// Encodes the request: one exact lookup, no dump.
    #[must_use]
    pub(crate) fn request(&self) -> [u8; REQUEST_LENGTH] {
        let mut request = [0; REQUEST_LENGTH];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            request[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&72_u32.to_ne_bytes());
        put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        put(&NLM_F_REQUEST.to_ne_bytes());
        // The sequence number and the port.
        put(&[0; 8]);
        let family = if self.caller.is_ipv4() { AF_INET } else { AF_INET6 };
        put(&[family, IPPROTO_TCP, 0, 0]);
        put(&(1_u32 << TCP_ESTABLISHED).to_ne_bytes());
        put(&self.caller.port().to_be_bytes());
        put(&self.server.port().to_be_bytes());
        put(&address_bytes(self.caller.ip()));
        put(&address_bytes(self.server.ip()));
        // Any interface, any cookie.
        put(&0_u32.to_ne_bytes());
        put(&[0xff; 8]);
        request
    }

    /// Returns the user that an answer names.
    pub(crate) fn owner(&self, answer: &[u8]) -> Result<u32, NoOwner> {
        let number = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if kind == Some(NLMSG_ERROR) {
            let code = number(HEADER_LENGTH).map_or(0, |code| i32::from_ne_bytes(code.to_ne_bytes()));
            return Err(NoOwner::Unknown(code.saturating_neg()));
        }
        if kind != Some(SOCK_DIAG_BY_FAMILY) || answer.len() < ANSWER_LENGTH {
            return Err(NoOwner::Malformed);
        }
        let body = &answer[HEADER_LENGTH..ANSWER_LENGTH];
        let (family, state) = (body[0], body[1]);
        let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let caller = address(family, &body[8..24]).map(|ip| canonical(ip, port(4)));
        let server = address(family, &body[24..40]).map(|ip| canonical(ip, port(6)));
        if caller != Some(self.caller) || server != Some(self.server) {
            return Err(NoOwner::OtherSocket);
        }
        let (uid, inode) = (number(HEADER_LENGTH + 64), number(HEADER_LENGTH + 68));
        match (state, uid, inode) {
            (TCP_ESTABLISHED, Some(uid), Some(inode)) if inode != 0 => Ok(uid),
            _ => Err(NoOwner::Closed),
        }
    }
}

fn canonical(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => bytes.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        AF_INET6 => bytes.first_chunk::<16>().map(|bytes| IpAddr::from(Ipv6Addr::from(*bytes))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection() -> LoopbackConnection {
        LoopbackConnection::new("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:731".parse().unwrap())
    }

    /// Encodes an answer for a connection, with its state, user and inode.
    fn answer(family: u8, caller: &str, server: &str, (state, uid, inode): (u8, u32, u32)) -> Vec<u8> {
        let (caller, server): (SocketAddr, SocketAddr) = (caller.parse().unwrap(), server.parse().unwrap());
        let mut out = vec![0; HEADER_LENGTH];
        out[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        out.extend([family, state, 0, 0]);
        out.extend(caller.port().to_be_bytes());
        out.extend(server.port().to_be_bytes());
        out.extend(address_bytes(caller.ip()));
        out.extend(address_bytes(server.ip()));
        out.extend([0; 12]);
        out.extend([0; 12]);
        out.extend(uid.to_ne_bytes());
        out.extend(inode.to_ne_bytes());
        out
    }

    #[test]
    fn only_the_established_connection_itself_names_a_user() {
        let owner = |family, caller, server, end| connection().owner(&answer(family, caller, server, end));
        let (caller, server) = ("127.0.0.1:40000", "127.0.0.1:731");
        assert_eq!(owner(AF_INET, caller, server, (1, 1000, 7)), Ok(1000));
        let mapped = ("[::ffff:127.0.0.1]:40000", "[::ffff:127.0.0.1]:731");
        assert_eq!(owner(AF_INET6, mapped.0, mapped.1, (1, 1000, 7)), Ok(1000));
        assert_eq!(owner(AF_INET, caller, server, (1, 0, 0)), Err(NoOwner::Closed));
        assert_eq!(owner(AF_INET, caller, server, (8, 1000, 7)), Err(NoOwner::Closed));
        // The kernel may answer with a socket that listens on the port.
        assert_eq!(owner(AF_INET, "127.0.0.1:40000", "0.0.0.0:0", (10, 0, 7)), Err(NoOwner::OtherSocket));
        assert_eq!(owner(AF_INET, "127.0.0.1:40001", server, (1, 1000, 7)), Err(NoOwner::OtherSocket));
        assert_eq!(owner(AF_INET, server, caller, (1, 1000, 7)), Err(NoOwner::OtherSocket));
        let mut whole = answer(AF_INET, caller, server, (1, 1000, 7));
        assert_eq!(connection().owner(&whole[..ANSWER_LENGTH - 1]), Err(NoOwner::Malformed));
        whole[4] ^= 1;
        assert_eq!(connection().owner(&whole), Err(NoOwner::Malformed));
    }

    /// The layout of `struct inet_diag_req_v2` after the header (sock_diag(7)).
    #[test]
    fn a_request_asks_for_one_established_connection() {
        let request = connection().request();
        assert_eq!((&request[..4], &request[16..18]), (&72_u32.to_ne_bytes()[..], &[AF_INET, IPPROTO_TCP][..]));
        assert_eq!(request[20..24], 2_u32.to_ne_bytes(), "TCP_ESTABLISHED is state 1");
        assert_eq!(request[24..28], [40_000_u16.to_be_bytes(), 731_u16.to_be_bytes()].concat());
        assert_eq!((&request[28..32], &request[44..48]), (&[127, 0, 0, 1][..], &[127, 0, 0, 1][..]));
    }

    #[test]
    fn an_error_of_the_kernel_names_nobody() {
        let mut error = vec![0; HEADER_LENGTH];
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        error.extend((-2_i32).to_ne_bytes());
        assert_eq!(connection().owner(&error), Err(NoOwner::Unknown(2)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = connection().owner(&bytes);
        }
    }
}
