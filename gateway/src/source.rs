//! The source of a connection: a user of this host, or a network address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The caller of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpCaller {
    /// The address of the other end.
    pub address: SocketAddr,
    /// The user on a plain listener; `None` on a TLS listener.
    pub user: Option<u32>,
}

/// The key for the limits: the user on loopback, otherwise the address (for IPv6, its 64-bit network).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum CallerSource {
    /// A user of this host.
    User(u32),
    /// A host or network.
    Address(IpAddr),
}

impl TcpCaller {
    /// Returns the source for the limits.
    #[must_use]
    pub(crate) fn source(&self) -> CallerSource {
        match (self.user, self.ip()) {
            (Some(user), _) => CallerSource::User(user),
            (None, IpAddr::V6(ip)) => CallerSource::Address(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
            (None, ip) => CallerSource::Address(ip),
        }
    }

    /// Returns the address of the other end; an IPv4-mapped address as IPv4.
    #[must_use]
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

impl fmt::Display for CallerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Address(ip) => write!(f, "address {ip}"),
        }
    }
}

/// Shows user and address, or the address, for logs.
impl fmt::Display for TcpCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = self.user {
            write!(f, "user {user}, ")?;
        }
        write!(f, "address {}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_source_is_its_network_and_a_local_one_its_user() {
        let source = |address: &str, user| TcpCaller { address: address.parse().unwrap(), user }.source();
        assert_eq!(source("[2001:db8::1]:1", None), source("[2001:db8::2]:9", None));
        assert_ne!(source("[2001:db8:0:1::1]:1", None), source("[2001:db8::1]:1", None));
        assert_eq!(source("[::ffff:10.0.0.1]:1", None), source("10.0.0.1:2", None));
        assert_eq!(source("127.0.0.1:1", Some(7)), source("[::1]:2", Some(7)));
    }
}
