//! The sandbox of a worker, and the parts of it that are not in force.
//!
//! PURE.

use std::fmt;

use serde::Serialize;

/// The sandbox in which a worker loaded its module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// The profile's name, which is the name of the module.
    pub profile: &'static str,
    /// The version of Landlock's interface that confines files, or the reason why there is none.
    pub files: Result<u32, NoLandlock>,
    /// Whether system calls are filtered.
    pub calls: bool,
    /// The parts that are not confined.
    pub gaps: Vec<Gap>,
}

/// The reason why Landlock confines nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoLandlock {
    /// The kernel is older, or built without it.
    Missing,
    /// The same, or a filter of system calls hides it: that of a container, or of a service.
    MissingOrHidden,
    /// The kernel has it, and it is not in the list of security modules.
    Disabled,
    /// A filter of system calls forbids it.
    Forbidden,
}

impl NoLandlock {
    /// From the kernel's error for a question about Landlock (landlock_create_ruleset(2)). The kernel itself returns only two errors.
    #[must_use]
    pub(crate) fn from_error(code: Option<i32>, calls_are_filtered: bool) -> Self {
        match code {
            None | Some(libc::ENOSYS) if calls_are_filtered => Self::MissingOrHidden,
            None | Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EOPNOTSUPP) => Self::Disabled,
            Some(_) => Self::Forbidden,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Missing => "this kernel has no Landlock",
            Self::MissingOrHidden => {
                "this kernel has no Landlock, or the system call filter of this container or service hides it"
            }
            Self::Disabled => "Landlock is not enabled in this kernel",
            Self::Forbidden => "the system call filter of this container or service forbids Landlock",
        }
    }

    /// What an administrator can do.
    fn remedy(self) -> &'static str {
        match self {
            Self::Missing => NEWER_KERNEL,
            Self::Disabled => "add landlock to the boot parameter lsm=; `cat /sys/kernel/security/lsm` shows the list",
            Self::MissingOrHidden | Self::Forbidden => {
                "let the container or service make the system calls landlock_create_ruleset, landlock_add_rule and landlock_restrict_self \
                 (SystemCallFilter= in a unit or .nspawn file; docs/sandbox.md)"
            }
        }
    }
}

const NEWER_KERNEL: &str = "a newer kernel confines it; docs/sandbox.md has the table";

/// A part of the sandbox that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Gap {
    /// Access to files: Linux 5.13, with Landlock enabled.
    Files,
    /// System calls: a kernel with seccomp.
    SystemCalls,
    /// Truncating files: Linux 6.2.
    Truncation,
    /// TCP ports: Linux 6.7.
    TcpPorts,
    /// Commands to devices: Linux 6.10.
    DeviceCommands,
    /// Signals to other processes: Linux 6.12.
    Signals,
    /// Unix sockets without a path: Linux 6.12.
    AbstractSockets,
    /// Unix sockets with a path: Linux 7.1.
    UnixSockets,
}

impl Gap {
    /// The open part, and the kernel that closes it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Files => ("files", "Linux 5.13, with Landlock enabled"),
            Self::SystemCalls => ("system calls", "a kernel with seccomp"),
            Self::Truncation => ("the truncation of files", "Linux 6.2"),
            Self::TcpPorts => ("TCP ports", "Linux 6.7"),
            Self::DeviceCommands => ("commands to devices", "Linux 6.10"),
            Self::Signals => ("signals to other processes", "Linux 6.12"),
            Self::AbstractSockets => ("abstract Unix sockets", "Linux 6.12"),
            Self::UnixSockets => ("which Unix sockets are opened by path", "Linux 7.1"),
        }
    }
}

impl Confinement {
    /// The parts that are not confined, and what would confine them, in one line. `None` if all are.
    #[must_use]
    pub(crate) fn open_parts(&self) -> Option<String> {
        let join = |one: &dyn Fn(&Gap) -> String| self.gaps.iter().map(one).collect::<Vec<_>>().join(", ");
        let with_kernels = || join(&|gap| format!("{} ({})", gap.words().0, gap.words().1));
        match self.files {
            _ if self.gaps.is_empty() => None,
            Ok(_) | Err(NoLandlock::Missing) => Some(format!("this kernel does not confine {}", with_kernels())),
            // Another kernel would not help.
            Err(reason) => {
                Some(format!("{}, so nothing confines {}", reason.words(), join(&|gap| gap.words().0.into())))
            }
        }
    }

    /// What an administrator can do about the open parts.
    #[must_use]
    pub(crate) fn remedy(&self) -> &'static str {
        self.files.err().map_or(NEWER_KERNEL, NoLandlock::remedy)
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profile {}: ", self.profile)?;
        match self.files {
            Ok(abi) => write!(f, "files (Landlock ABI {abi})")?,
            Err(NoLandlock::Missing) => f.write_str("files are not confined, this kernel has no Landlock")?,
            Err(_) => f.write_str("files are not confined")?,
        }
        f.write_str(if self.calls {
            ", system calls"
        } else {
            ", system calls are not filtered, this kernel has no seccomp"
        })?;
        self.open_parts().map_or(Ok(()), |open| write!(f, "; {open}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAPS: [Gap; 8] = [
        Gap::Files,
        Gap::SystemCalls,
        Gap::Truncation,
        Gap::TcpPorts,
        Gap::DeviceCommands,
        Gap::Signals,
        Gap::AbstractSockets,
        Gap::UnixSockets,
    ];

    #[test]
    fn a_sandbox_names_what_it_confines_and_each_gap() {
        let whole = Confinement { profile: "p", files: Ok(6), calls: true, gaps: Vec::new() };
        assert_eq!(whole.to_string(), "profile p: files (Landlock ABI 6), system calls");
        assert_eq!(whole.open_parts(), None);
        let none = Confinement { profile: "p", files: Err(NoLandlock::Missing), calls: false, gaps: GAPS.to_vec() };
        let text = none.to_string();
        assert!(text.contains("files are not confined") && text.contains("system calls are not filtered"), "{text}");
        assert!(text.ends_with(&format!("; {}", none.open_parts().unwrap())), "{text}");
        assert!(text.contains("; this kernel does not confine files (Linux 5.13, with Landlock enabled), "), "{text}");
        let words: std::collections::HashSet<_> = GAPS.map(Gap::words).into();
        let is_named = |(part, kernel): &(&str, &str)| text.contains(&format!("{part} ({kernel})"));
        assert!(words.len() == GAPS.len() && words.iter().all(is_named), "{text}");
    }

    #[test]
    fn the_reason_without_landlock_is_the_kernels_or_a_filters() {
        for (code, is_filtered, reason, words, remedy) in [
            (Some(libc::ENOSYS), false, NoLandlock::Missing, "this kernel does not confine files (", "a newer kernel"),
            (Some(libc::ENOSYS), true, NoLandlock::MissingOrHidden, "or the system call filter", "landlock_add_rule"),
            (None, false, NoLandlock::Missing, "this kernel has no Landlock", "a newer kernel"),
            (Some(libc::EOPNOTSUPP), true, NoLandlock::Disabled, "is not enabled in this kernel, so nothing", "lsm="),
            (
                Some(libc::EPERM),
                true,
                NoLandlock::Forbidden,
                "forbids Landlock, so nothing confines files",
                "SystemCallFilter=",
            ),
            (Some(libc::EACCES), false, NoLandlock::Forbidden, "of this container or service", "landlock_add_rule"),
        ] {
            assert_eq!(NoLandlock::from_error(code, is_filtered), reason);
            let gaps = vec![Gap::Files, Gap::TcpPorts];
            let confinement = Confinement { profile: "p", files: Err(reason), calls: true, gaps };
            let text = confinement.to_string();
            assert!(text.starts_with("profile p: files are not confined") && text.contains(words), "{text}");
            // A version of the kernel is named only where another kernel helps.
            assert_eq!(text.contains("Linux 6.7"), reason == NoLandlock::Missing, "{text}");
            assert!(confinement.remedy().contains(remedy), "{}", confinement.remedy());
        }
    }
}
