//! Verifies that the caller is the client that it claims to be.
//!
//! PURE, except for the failures, which [`FailureLimit`] counts.

use std::sync::Arc;

use ring::signature::{RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents};
use subtle::ConstantTimeEq as _;

use crate::config::LocalClient;
use crate::credentials::Credentials;
use crate::library::Version;
use crate::login_body::LoginBody;
use crate::source::{CallerSource, TcpCaller};

/// The kind of credentials by which a caller identified itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialsKind {
    Password,
    /// A certificate, and a payload of this version.
    Payload(Version),
}

/// A caller whose local identity is verified.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub client: Arc<LocalClient>,
    /// The kind of credentials by which it identified itself.
    pub credentials_kind: CredentialsKind,
}

/// The reason why a local identity is not valid. The caller does not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotVerified {
    #[error("no client has this certificate or user name")]
    Unknown,
    #[error("the client is disabled")]
    Disabled,
    /// The client may not connect from this source.
    #[error("the client is not served from this user or address")]
    Origin,
    #[error("too many failed logins came from this user or address")]
    TooManyFailures,
    #[error("wrong password")]
    Password,
    /// The signature does not match the certificate's key.
    #[error("the signature does not match the certificate's key")]
    Signature,
}

/// Limits the failures of each pair of source and client.
pub(crate) trait FailureLimit {
    /// Whether this source may try this client again.
    fn may_try(&self, source: CallerSource, client: &str) -> bool;
    fn count_failure(&self, source: CallerSource, client: &str);
}

/// Verifies the credentials: match, origin, failure rate, proof. For a certificate, the proof is the payload.
///
/// # Errors
/// The first step that fails, with the client if one matched.
pub(crate) fn verify(
    clients: &[Arc<LocalClient>],
    caller: &TcpCaller,
    (credentials, body): (&Credentials, Option<&LoginBody>),
    rates: &impl FailureLimit,
) -> Result<Verified, (NotVerified, Option<Arc<LocalClient>>)> {
    let client = find(clients, credentials).ok_or((NotVerified::Unknown, None))?;
    let not_verified = |reason| Err((reason, Some(Arc::clone(client))));
    if client.disabled {
        return not_verified(NotVerified::Disabled);
    }
    if !is_admitted(client, caller) {
        return not_verified(NotVerified::Origin);
    }
    if !rates.may_try(caller.source(), &client.name) {
        return not_verified(NotVerified::TooManyFailures);
    }
    let (credentials_kind, is_proven) = match (credentials, body) {
        (Credentials::Password { sha256, .. }, _) => (CredentialsKind::Password, has_password(client, sha256)),
        (Credentials::Certificate(der), Some(body)) => {
            (CredentialsKind::Payload(body.version), is_signed(client, der, body))
        }
        _ => return not_verified(NotVerified::Unknown),
    };
    if !is_proven {
        rates.count_failure(caller.source(), &client.name);
        let by_password = credentials_kind == CredentialsKind::Password;
        return not_verified(if by_password { NotVerified::Password } else { NotVerified::Signature });
    }
    Ok(Verified { client: Arc::clone(client), credentials_kind })
}

fn find<'a>(clients: &'a [Arc<LocalClient>], credentials: &Credentials) -> Option<&'a Arc<LocalClient>> {
    clients.iter().find(|client| match credentials {
        Credentials::Password { name, .. } => client.name == *name && !client.passwords.is_empty(),
        Credentials::Certificate(der) => client.certificates.iter().any(|listed| listed.certificate.der() == der),
        Credentials::Token(_) => false,
    })
}

fn is_admitted(client: &LocalClient, caller: &TcpCaller) -> bool {
    match caller.user {
        Some(user) => client.users.contains(&user),
        None => client.admits_address(caller.ip()),
    }
}

/// Compares the password with each listed one, in constant time.
fn has_password(client: &LocalClient, sha256: &[u8; 32]) -> bool {
    let mut found = subtle::Choice::from(0);
    for password in &client.passwords {
        found |= password.ct_eq(sha256);
    }
    found.into()
}

fn is_signed(client: &LocalClient, der: &[u8], body: &LoginBody) -> bool {
    let Some(listed) = client.certificates.iter().find(|listed| listed.certificate.der() == der) else { return false };
    let key = RsaPublicKeyComponents { n: &listed.certificate.modulus, e: &listed.certificate.exponent };
    key.verify(&RSA_PKCS1_2048_8192_SHA512, &body.message, &body.signature).is_ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::num::NonZeroU32;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::config::ClientCertificate;
    use crate::test_data::{leaf, leaf_der};

    /// Whether another try is allowed, and the number of counted failures.
    struct CountedFailures(bool, Cell<usize>);

    impl FailureLimit for CountedFailures {
        fn may_try(&self, _: CallerSource, _: &str) -> bool {
            self.0
        }

        fn count_failure(&self, _: CallerSource, _: &str) {
            self.1.set(self.1.get() + 1);
        }
    }

    fn client() -> LocalClient {
        LocalClient {
            name: "finance".into(),
            passwords: vec![[0; 32], Sha256::digest("secret").into()],
            certificates: vec![ClientCertificate { path: "leaf.pem".into(), certificate: leaf() }],
            versions: vec![Version::V2],
            users: vec![1000],
            from: vec!["10.1.2.0/24".parse().unwrap()],
            rate_per_minute: NonZeroU32::MIN,
            disabled: false,
            transition: false,
        }
    }

    fn password(name: &str, text: &str) -> Credentials {
        Credentials::Password { name: name.into(), sha256: Sha256::digest(text).into() }
    }

    fn caller(user: Option<u32>, address: &str) -> TcpCaller {
        TcpCaller { user, address: address.parse().unwrap() }
    }

    fn outcome(client: LocalClient, caller: &TcpCaller, credentials: &Credentials) -> (Option<NotVerified>, usize) {
        let rates = CountedFailures(true, Cell::new(0));
        let body = LoginBody { version: Version::V2, message: vec![1; 100], signature: vec![1; 256] };
        let result = verify(&[Arc::new(client)], caller, (credentials, Some(&body)), &rates);
        (result.err().map(|(reason, _)| reason), rates.1.get())
    }

    #[test]
    fn a_password_is_valid_only_for_its_client_from_its_users_and_networks() {
        let local = caller(Some(1000), "127.0.0.1:9");
        assert_eq!(outcome(client(), &local, &password("finance", "secret")), (None, 0));
        assert_eq!(outcome(client(), &local, &password("finance", "other")), (Some(NotVerified::Password), 1));
        assert_eq!(outcome(client(), &local, &password("other", "secret")), (Some(NotVerified::Unknown), 0));
        let root = caller(Some(0), "127.0.0.1:9");
        assert_eq!(outcome(client(), &root, &password("finance", "secret")), (Some(NotVerified::Origin), 0));
        let near = caller(None, "10.1.2.9:9");
        assert_eq!(outcome(client(), &near, &password("finance", "secret")), (None, 0));
        let far = caller(None, "10.1.3.9:9");
        assert_eq!(outcome(client(), &far, &password("finance", "secret")), (Some(NotVerified::Origin), 0));
        let disabled = LocalClient { disabled: true, ..client() };
        assert_eq!(outcome(disabled, &local, &password("finance", "secret")), (Some(NotVerified::Disabled), 0));
    }

    #[test]
    fn a_listed_certificate_without_its_key_proves_nothing() {
        let local = caller(Some(1000), "127.0.0.1:9");
        assert_eq!(outcome(client(), &local, &Credentials::Certificate(leaf_der())), (Some(NotVerified::Signature), 1));
        let mut longer = leaf_der();
        longer.push(0);
        assert_eq!(outcome(client(), &local, &Credentials::Certificate(longer)), (Some(NotVerified::Unknown), 0));
    }

    #[test]
    fn a_source_that_failed_too_often_is_not_verified() {
        let rates = CountedFailures(false, Cell::new(0));
        let local = caller(Some(1000), "127.0.0.1:9");
        let result = verify(&[Arc::new(client())], &local, (&password("finance", "secret"), None), &rates);
        assert_eq!(result.err().map(|(reason, _)| reason), Some(NotVerified::TooManyFailures));
    }
}
