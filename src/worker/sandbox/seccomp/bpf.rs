//! The filter as a BPF program: a decision tree over the numbers of the calls.
//!
//! PURE. The library compiles rules on arguments. Its form of a call without rules has five instructions in a linear list. When a filter is
//! installed, the kernel translates each instruction, and tests each existing call. A tree needs two instructions for a run of equal calls,
//! and a call executes eight of them.

use std::collections::BTreeMap;

use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

use super::arguments::ArgumentRules;
use super::lists::FIRST_UNKNOWN;

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallAnswer {
    Allow,
    /// `EPERM`.
    Refuse,
    /// `ENOSYS`, as on a kernel without the call. Libraries expect it.
    Missing,
    /// Depends on its arguments.
    CheckArguments,
}

/// The answers to all calls.
#[derive(Debug)]
pub(super) struct Table {
    /// To each listed call.
    named: BTreeMap<u32, CallAnswer>,
    /// To an unlisted call.
    unnamed: CallAnswer,
    /// To a call that is newer than the lists.
    newer: CallAnswer,
}

impl Table {
    /// Unlisted calls return `ENOSYS`.
    pub(super) fn allowing(named: BTreeMap<u32, CallAnswer>) -> Self {
        Self { named, unnamed: CallAnswer::Missing, newer: CallAnswer::Missing }
    }

    /// Unlisted calls are allowed, except those newer than the lists.
    pub(super) fn denying(named: BTreeMap<u32, CallAnswer>) -> Self {
        Self { named, unnamed: CallAnswer::Allow, newer: CallAnswer::Missing }
    }

    /// The first number of each run of calls with one answer, and the answer.
    fn runs(&self) -> Vec<(u32, CallAnswer)> {
        let mut runs: Vec<(u32, CallAnswer)> = Vec::new();
        for call in 0..=FIRST_UNKNOWN {
            let unnamed = if call < FIRST_UNKNOWN { self.unnamed } else { self.newer };
            let answer = self.named.get(&call).copied().unwrap_or(unnamed);
            if runs.last().is_none_or(|last| last.1 != answer) {
                runs.push((call, answer));
            }
        }
        runs
    }
}

/// Compiles the program. Calls of another architecture are refused: their numbers have another meaning.
///
/// # Errors
/// When the rules make a program that is too long for the kernel.
pub(super) fn compile(
    table: &Table,
    rules: ArgumentRules,
    architecture: TargetArch,
) -> Result<BpfProgram, BackendError> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal(libc::EPERM), architecture)?;
    let by_arguments: BpfProgram = filter.try_into()?;
    // It begins with its own check of the architecture: load, compare, end.
    let own = by_arguments.get(1).map_or(0, |compare| compare.k);
    let mut tree = tree(&table.runs());
    let length = tree.len();
    for (at, instruction) in tree.iter_mut().enumerate() {
        if instruction.code == JUMP && instruction.k == TO_THE_RULES {
            instruction.k = u32::try_from(length - at - 1).unwrap_or_default();
        }
    }
    let mut program =
        vec![LOAD_ARCHITECTURE, jump(JUMP_IF_EQUAL, own, 1, 0), answer(refusal(libc::EPERM)), LOAD_NUMBER];
    if cfg!(target_arch = "x86_64") {
        // x86-64's second interface, with 32-bit pointers. Libraries for the first one do not use it.
        const X32: u32 = 0x4000_0000;
        program.extend([jump(JUMP_IF_SET, X32, 0, 1), answer(refusal(libc::EPERM))]);
    }
    program.append(&mut tree);
    program.extend(by_arguments);
    Ok(program)
}

/// Halves the list of runs until one is left.
fn tree(runs: &[(u32, CallAnswer)]) -> BpfProgram {
    match runs {
        [] => vec![answer(refusal(libc::EPERM))],
        [(_, one)] => vec![match one {
            CallAnswer::Allow => answer(SeccompAction::Allow),
            CallAnswer::Refuse => answer(refusal(libc::EPERM)),
            CallAnswer::Missing => answer(refusal(libc::ENOSYS)),
            CallAnswer::CheckArguments => jump(JUMP, TO_THE_RULES, 0, 0),
        }],
        _ => {
            let (lower, upper) = runs.split_at(runs.len() / 2);
            let first = upper.first().map_or(0, |run| run.0);
            let lower = tree(lower);
            let mut program = match u8::try_from(lower.len()) {
                Ok(length) => vec![jump(JUMP_IF_NOT_BELOW, first, length, 0)],
                // A conditional jump reaches 255 instructions; an unconditional one reaches all.
                Err(_) => {
                    let length = u32::try_from(lower.len()).unwrap_or(u32::MAX);
                    vec![jump(JUMP_IF_NOT_BELOW, first, 0, 1), jump(JUMP, length, 0, 0)]
                }
            };
            program.extend(lower);
            program.extend(tree(upper));
            program
        }
    }
}

fn refusal(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

/// A placeholder for the distance to the end of the tree, until it is known.
const TO_THE_RULES: u32 = u32::MAX;

// Opcodes of linux/bpf_common.h.
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_NOT_BELOW: u16 = 0x35;
const JUMP_IF_SET: u16 = 0x45;

/// The number of the call, at offset 0 of `struct seccomp_data`.
const LOAD_NUMBER: sock_filter = sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };

/// The architecture, at offset 4.
const LOAD_ARCHITECTURE: sock_filter = sock_filter { code: 0x20, jt: 0, jf: 0, k: 4 };

/// Skips `jt` instructions if the comparison of the loaded value with `k` is true, and else `jf`.
fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn answer(action: SeccompAction) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: action.into() }
}

#[cfg(test)]
pub(super) mod emulator {
    use super::*;

    /// Runs a program as the kernel does. Returns its answer to a call with these arguments, and the number of executed
    /// instructions.
    pub(crate) fn run(program: &[sock_filter], call: u32, arguments: [u64; 6]) -> (u32, usize) {
        let architecture = program.iter().find(|instruction| instruction.code == JUMP_IF_EQUAL).unwrap().k;
        run_on(program, call, architecture, arguments)
    }

    pub(crate) fn run_on(program: &[sock_filter], call: u32, architecture: u32, arguments: [u64; 6]) -> (u32, usize) {
        let mut data = vec![call, architecture, 0, 0];
        #[allow(clippy::cast_possible_truncation)]
        data.extend(arguments.iter().flat_map(|argument| [*argument as u32, (*argument >> 32) as u32]));
        let (mut value, mut at) = (0, 0);
        for count in 1.. {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            let jump = |holds| usize::from(if holds { jt } else { jf });
            at += 1 + match code {
                0x20 => {
                    value = data[k as usize / 4];
                    0
                }
                0x54 => {
                    value &= k;
                    0
                }
                JUMP => k as usize,
                RETURN => return (k, count),
                JUMP_IF_EQUAL => jump(value == k),
                JUMP_IF_NOT_BELOW => jump(value >= k),
                0x25 => jump(value > k),
                JUMP_IF_SET => jump(value & k != 0),
                other => panic!("opcode {other:#x}"),
            };
        }
        unreachable!()
    }
}
