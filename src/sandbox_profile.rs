//! The sandbox profiles: the files, sockets and system calls that each known module needs, in addition to those of every
//! library. Both processes use them.
//!
//! PURE. A path is absolute, or begins with `~/` (the user's home) or with `$NAME` (the path in that environment variable).
//! Missing paths are ignored. `docs/sandbox.md` shows the table to users.

pub(crate) mod gaps;
pub(crate) mod paths;

/// `sandbox.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SandboxMode {
    /// The profile of the module, if it has one.
    #[default]
    Module,
    /// No sandbox.
    Off,
}

/// The names of the modes in the configuration.
pub(crate) const MODES: [(&str, SandboxMode); 2] = [("module", SandboxMode::Module), ("off", SandboxMode::Off)];

/// The parts of the sandbox that a kernel enforces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnforcedSandbox {
    /// The version of Landlock's interface that confines files; `None` if the kernel has none.
    pub landlock_abi: Option<u32>,
    /// Whether system calls are filtered.
    pub system_calls: bool,
}

/// The kinds of sockets that a worker may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketFamily {
    /// Unix sockets, to a daemon that holds the token.
    Unix,
    /// IPv4 and IPv6.
    Internet,
    /// Netlink, netlink(7): the resolver reads network interfaces from it, and libusb devices.
    Netlink,
}

/// The configuration of a module that adds to its profile: the directories of its tokens, or a simulator's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenStoreKind {
    /// The profile alone is enough.
    Fixed,
    /// `directories.tokendir` of softhsm2.conf.
    SoftHsm,
    /// `dbargs` of kryoptic's token.conf.
    Kryoptic,
    /// The TCTI variables of a TPM: they may name a simulator, which is used over the network.
    Tpm,
}

/// The kind of a module's system call filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFilter {
    /// Only listed calls are allowed: the module was tested with the list.
    AllowList,
    /// Listed calls are refused: the module was not tested.
    DenyList,
}

/// The permissions of a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// The module's name in the table of modules.
    pub name: &'static str,
    /// The sockets that it may open.
    pub families: &'static [SocketFamily],
    /// Whether it may open more sockets after the login, to connect to a server again.
    pub sockets_after_login: bool,
    /// The kind of its system call filter.
    pub calls: CallFilter,
    /// Whether it may change the group and mode of its open files; `worker/sandbox` has the limits.
    pub sets_modes: bool,
    /// Files and directories to read.
    pub reads: &'static [&'static str],
    /// Files and directories to read and write.
    pub writes: &'static [&'static str],
    /// Device files to read, write and control.
    pub devices: &'static [&'static str],
    /// The paths of its daemons' sockets. Kernels without this rule (before Landlock ABI 9) do not limit them.
    pub sockets: &'static [&'static str],
    /// The configuration that adds to this profile.
    pub store: TokenStoreKind,
}

impl Profile {
    /// The profile of a module's name.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}

/// The start of every profile: no permission beyond those of every library.
const BARE: Profile = Profile {
    name: "",
    families: &[],
    sockets_after_login: false,
    calls: CallFilter::AllowList,
    sets_modes: false,
    reads: &[],
    writes: &[],
    devices: &[],
    sockets: &[],
    store: TokenStoreKind::Fixed,
};

/// The start of profiles that use readers through pcscd.
const SMART_CARD: Profile = Profile {
    families: &[SocketFamily::Unix],
    reads: &["/run/pcscd"],
    sockets: &["/run/pcscd", "$PCSCLITE_CSOCK_NAME"],
    ..BARE
};

/// The start of profiles that use an HSM over the network, and a name service.
const NETWORK: Profile = Profile {
    families: &[SocketFamily::Unix, SocketFamily::Internet, SocketFamily::Netlink],
    sockets_after_login: true,
    calls: CallFilter::DenyList,
    sets_modes: true,
    sockets: &["/run"],
    ..BARE
};

/// The files that a resolver and TLS read.
const RESOLVER_AND_TLS: [&str; 12] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "$SSL_CERT_FILE",
    "$SSL_CERT_DIR",
];

/// The additional paths that a profile with internet sockets may read.
#[must_use]
pub(crate) fn network_reads(profile: &Profile) -> &'static [&'static str] {
    if profile.families.contains(&SocketFamily::Internet) { &RESOLVER_AND_TLS } else { &[] }
}

/// The paths that every library may read: for the loader, OpenSSL and the C library.
pub(crate) const EVERY_READ: [&str; 29] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/tls/openssl.d",
    "/etc/crypto-policies",
    "/proc/self",
    "/proc/sys",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/filesystems",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "$OPENSSL_CONF",
    "$OPENSSL_MODULES",
    "$OPENSSL_ENGINES",
];

/// The paths that every library may write.
pub(crate) const EVERY_WRITE: [&str; 1] = ["/dev/null"];

/// The table of profiles. A module that is not in it runs without a sandbox.
pub(crate) const PROFILES: [Profile; 14] = [
    Profile {
        name: "softhsm2",
        reads: &["$SOFTHSM2_CONF", "~/.config/softhsm2", "/etc/softhsm2.conf", "/etc/softhsm"],
        store: TokenStoreKind::SoftHsm,
        ..BARE
    },
    Profile {
        name: "opensc",
        reads: &["/run/pcscd", "/etc/opensc", "/etc/opensc.conf", "$OPENSC_CONF"],
        writes: &["~/.cache/opensc"],
        ..SMART_CARD
    },
    Profile { name: "ykcs11", ..SMART_CARD },
    Profile {
        name: "tpm2",
        families: &[SocketFamily::Unix],
        sockets_after_login: true,
        reads: &["/etc/tpm2-tss", "/sys/kernel/security", "$TSS2_FAPICONF"],
        writes: &[
            "$TPM2_PKCS11_STORE",
            "~/.tpm2_pkcs11",
            "/etc/tpm2_pkcs11",
            "/var/lib/tpm2-tss",
            "/run/tpm2-tss",
            "~/.local/share/tpm2-tss",
            "$XDG_DATA_HOME/tpm2-pkcs11",
            "~/.local/share/tpm2-pkcs11",
            "$PKCS11_SQL_LOCK",
        ],
        devices: &["/dev/tpm0", "/dev/tpmrm0"],
        sockets: &["/run/dbus"],
        store: TokenStoreKind::Tpm,
        ..BARE
    },
    Profile {
        name: "opencryptoki",
        families: &[SocketFamily::Unix],
        sockets_after_login: true,
        calls: CallFilter::DenyList,
        sets_modes: true,
        reads: &["/etc/opencryptoki"],
        writes: &[
            "/var/lib/opencryptoki",
            "/run/opencryptoki",
            "/run/lock/opencryptoki",
            "/var/lock/opencryptoki",
            "/var/log/opencryptoki",
            "/dev/shm",
        ],
        devices: &["/dev/z90crypt"],
        sockets: &["/run/opencryptoki", "/run/pkcsslotd.socket"],
        ..BARE
    },
    Profile {
        name: "kryoptic",
        reads: &["$KRYOPTIC_CONF", "$XDG_CONFIG_HOME/kryoptic", "~/.config/kryoptic", "/etc/kryoptic"],
        store: TokenStoreKind::Kryoptic,
        ..BARE
    },
    Profile {
        name: "yubihsm",
        reads: &[
            "$YUBIHSM_PKCS11_CONF",
            "/etc/yubihsm_pkcs11.conf",
            "/run/udev",
            "/sys/bus",
            "/sys/devices",
            "/sys/class",
        ],
        devices: &["/dev/bus/usb"],
        ..NETWORK
    },
    Profile {
        name: "cloudhsm",
        reads: &["/opt/cloudhsm"],
        writes: &["/opt/cloudhsm/run", "/opt/cloudhsm/data", "/var/log/cloudhsm"],
        ..NETWORK
    },
    Profile {
        name: "luna",
        reads: &["$ChrystokiConfigurationPath", "/etc/Chrystoki.conf", "/usr/safenet", "/usr/lunasa"],
        writes: &["/dev/shm", "/usr/safenet/lunaclient/data"],
        devices: &["/dev/k7pf0", "/dev/k7pf1", "/dev/viper0", "/dev/viper1"],
        ..NETWORK
    },
    Profile {
        name: "ncipher",
        reads: &["/opt/nfast", "$NFAST_HOME", "/etc/cknfastrc", "$CKNFASTRC"],
        writes: &["/opt/nfast/kmdata/local", "$NFAST_KMDATA", "$NFAST_KMLOCAL"],
        sockets: &["/run", "/opt/nfast/sockets"],
        ..NETWORK
    },
    Profile {
        name: "utimaco",
        reads: &["$CS_PKCS11_R3_CFG", "/etc/utimaco", "/opt/utimaco"],
        devices: &["/dev/cs2.0", "/dev/cs2a"],
        ..NETWORK
    },
    Profile {
        name: "gcp-kms",
        reads: &["$KMS_PKCS11_CONFIG", "$GOOGLE_APPLICATION_CREDENTIALS", "$CLOUDSDK_CONFIG", "~/.config/gcloud"],
        ..NETWORK
    },
    Profile { name: "p11-kit-client", families: &[SocketFamily::Unix], sockets: &["/run", "/tmp", "~/"], ..BARE },
    // p11-kit loads other modules, so its profile permits what the usual ones need.
    Profile {
        name: "p11-kit",
        sets_modes: false,
        reads: &[
            "/etc/pkcs11",
            "~/.config/pkcs11",
            "/run/pcscd",
            "/etc/opensc",
            "/etc/opensc.conf",
            "$OPENSC_CONF",
            "$SOFTHSM2_CONF",
            "~/.config/softhsm2",
            "/etc/softhsm2.conf",
            "/etc/softhsm",
            "/etc/tpm2-tss",
        ],
        writes: &["~/.cache/opensc", "$TPM2_PKCS11_STORE", "~/.tpm2_pkcs11", "/etc/tpm2_pkcs11"],
        devices: &["/dev/tpm0", "/dev/tpmrm0"],
        sockets: &["/run", "/tmp", "~/", "$PCSCLITE_CSOCK_NAME"],
        store: TokenStoreKind::SoftHsm,
        ..NETWORK
    },
];

#[cfg(test)]
mod tests;
