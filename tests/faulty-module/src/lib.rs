//! A PKCS#11 module over SoftHSM2 that fails as it is told to.
//!
//! `FAULTY` holds rules separated by `;`:
//!
//! ```text
//! C_Sign=0x30          return that value            C_Sign=delay:500   wait so many milliseconds, then go on
//! C_Sign#2=0x30        at the second call only      C_Sign=hang        never return
//! C_Sign#2+=0x30       from the second call on      C_Sign=abort       end the process by a signal
//! C_Sign=spawn         start a process that stays  C_Sign=flood       write far more than a pipe holds
//! C_Sign=corrupt       flip a bit of the output     C_Sign=noise       write to standard output and error
//! C_Initialize=cry:5   write to standard error, and return that value
//! C_Initialize=after:5 do the work, and return that value
//! C_Sign=strip         drop the zeros before a signature, and log `stripped`
//! C_Sign=widen         put a zero before a signature
//! C_Sign=half          send the front half of an answer, and never return
//! C_Sign=forged        send what only begins like an answer, and never return
//! C_Sign=chatter       write to standard error for ever, beside everything else
//! C_Sign=send          send each line of the file FAULTY_FRAMES to the parent as a frame, then go on
//! C_Sign=instead       the same, and never return
//! C_Sign=repeat        send the parent the first signed message again, from the second call on, and never return
//! C_Sign=repeat:all    the same, and the first one of all processes with the same FAULTY_LOG
//! C_Login=outlive      start a process, and have both ignore and block what ends them with the parent
//! exit=abort           when the process ends        exit=hang
//! flags+CKF_NAME       set a token flag             flags-CKF_NAME     clear it
//! late+CKF_NAME        set it from the second reading on
//! blank:2              no serial number in the first readings, as while another process writes
//! clock                a clock field that does not parse
//! autologin            each session logs in by itself, with the PIN in FAULTY_PIN
//! empty-reader         a slot without a token before the others, also where only slots with a token are asked for
//! library:2.20         another version of the library
//! other-key            from the second C_SignInit on, another private key signs
//! pad:nul              a token's fields padded with NUL     latin1   a label that is not UTF-8
//! pad:rest             the label ends with NUL, and old bytes follow it
//! twice                each slot is listed twice
//! mechanisms:no-flags  no mechanism has a flag
//! serial=0000          another serial number        label=x            another label
//! attr:CKA_NAME=1      an attribute's value         attr:CKA_NAME=missing   CKR_ATTRIBUTE_TYPE_INVALID
//! few                  of several attributes the first is answered, and CKR_OK
//! certificate:FILE     the value of every certificate is this file's
//! pad                  zeros behind certificates    nomech:42          a mechanism taken away
//! unenforced           context logins answer CKR_USER_TYPE_INVALID
//! one-session          one session at a time for all processes with the same FAULTY_LOG, then CKR_SESSION_COUNT
//! attack               try what a sandbox forbids, at the load and at C_Sign; see attack.rs
//! environment          the names of the variables that the module sees, in the log of its calls
//! list:none            C_GetFunctionList answers CKR_OK and no list
//! interface:none       C_GetInterface answers CKR_OK and no interface
//! interface:empty      ... an interface without a function list
//! interface:version=9  ... one of that major version
//! exact                C_Sign takes only a buffer of the signature's exact length
//! ```
//!
//! `attr` rules hold for private keys. While the file `FAULTY_GONE` exists, the token is out. Each call's name goes to
//! the file `FAULTY_LOG`, never an argument. `FAULTY_MODULE` is the module below.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use cryptoki_sys::*;

mod attack;
mod attack_calls;
mod deviations;
mod frames;
mod wrap;

/// The effect of a rule on a call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Return(CK_RV),
    After(CK_RV),
    Cry(CK_RV),
    Delay(u64),
    Hang,
    Abort,
    Corrupt,
    Strip,
    Widen,
    Noise,
    Flood,
    Half,
    Forged,
    Chatter,
    Spawn,
    Send,
    Instead,
    Repeat(bool),
    Outlive,
}

pub(crate) struct Plan {
    rules: Vec<(String, u64, bool, Fault)>,
    pub(crate) words: Vec<String>,
    pub(crate) calls: Mutex<HashMap<&'static str, u64>>,
}

pub(crate) static PLAN: LazyLock<Plan> = LazyLock::new(|| Plan::parse(&std::env::var("FAULTY").unwrap_or_default()));

pub(crate) static REAL: LazyLock<(Pkcs11, CK_FUNCTION_LIST)> = LazyLock::new(|| {
    let path = std::env::var("FAULTY_MODULE").expect("FAULTY_MODULE names the module below");
    // SAFETY: it is a PKCS#11 module that the test selected.
    unsafe {
        let library = Pkcs11::new(path).expect("the module below loads");
        let mut list = std::ptr::null_mut();
        assert_eq!(library.C_GetFunctionList(&mut list), CKR_OK);
        let list = *list;
        (library, list)
    }
});

/// Holds a lock from the begin to the end of a session, or of the process. `false` if another session holds it.
fn one_session(call: &str) -> bool {
    static HELD: Mutex<Option<std::fs::File>> = Mutex::new(None);
    let mut held = HELD.lock().unwrap();
    match call {
        "C_OpenSession" => {
            let path = std::env::var("FAULTY_LOG").expect("FAULTY_LOG") + ".session";
            let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            let free = file.try_lock().is_ok();
            if free {
                *held = Some(file);
            }
            free
        }
        "C_CloseSession" | "C_CloseAllSessions" | "C_Finalize" => {
            *held = None;
            true
        }
        _ => true,
    }
}

/// The file `FAULTY_LOG`.
pub(crate) fn log() -> Option<std::fs::File> {
    let path = std::env::var("FAULTY_LOG").ok()?;
    Some(OpenOptions::new().create(true).append(true).open(path).expect("FAULTY_LOG can be written"))
}

impl Plan {
    fn parse(text: &str) -> Self {
        let mut plan = Self { rules: Vec::new(), words: Vec::new(), calls: Mutex::default() };
        for rule in text.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
            match rule.split_once('=') {
                Some((call, fault)) if call.starts_with("C_") || call == "exit" => {
                    let (call, from) = call.split_once('#').unwrap_or((call, "1+"));
                    let onward = from.ends_with('+');
                    let from = from.trim_end_matches('+').parse().expect("a number behind #");
                    plan.rules.push((call.to_owned(), from, onward, Fault::parse(fault)));
                }
                _ => plan.words.push(rule.to_owned()),
            }
        }
        plan
    }

    /// Counts a call, logs its name, and returns its fault.
    pub(crate) fn enter(&self, call: &'static str) -> Option<Fault> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let number = calls.entry(call).or_insert(0);
            *number += 1;
            *number
        };
        if let Some(mut log) = log() {
            writeln!(log, "{call}").unwrap();
            if call == "C_Initialize" && self.has("environment") {
                std::env::vars_os().for_each(|(name, _)| writeln!(log, "variable {}", name.display()).unwrap());
            }
        }
        if call.contains("ession") || matches!(call, "C_Sign" | "C_SignInit" | "C_Login" | "C_GetTokenInfo") {
            if std::env::var("FAULTY_GONE").is_ok_and(|path| std::path::Path::new(&path).exists()) {
                return Some(Fault::Return(CKR_DEVICE_REMOVED));
            }
        }
        if self.has("one-session") && !one_session(call) {
            return Some(Fault::Return(CKR_SESSION_COUNT));
        }
        let hit = |(name, from, onward, _): &&(String, u64, bool, Fault)| {
            name == call && (number == *from || (*onward && number >= *from))
        };
        self.rules.iter().find(hit).map(|rule| rule.3.clone())
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    /// The values of the words with this beginning.
    pub(crate) fn values<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.words.iter().filter_map(move |word| word.strip_prefix(start))
    }
}

impl Fault {
    fn parse(text: &str) -> Self {
        match text.split_once(':').unwrap_or((text, "")) {
            ("delay", time) => Self::Delay(time.parse().expect("milliseconds")),
            ("hang", _) => Self::Hang,
            ("abort", _) => Self::Abort,
            ("after", value) => match Self::parse(value) {
                Self::Return(value) => Self::After(value),
                _ => panic!("no value: {text}"),
            },
            ("cry", value) => match Self::parse(value) {
                Self::Return(value) => Self::Cry(value),
                _ => panic!("no value: {text}"),
            },
            ("corrupt", _) => Self::Corrupt,
            ("strip", _) => Self::Strip,
            ("widen", _) => Self::Widen,
            ("noise", _) => Self::Noise,
            ("flood", _) => Self::Flood,
            ("half", _) => Self::Half,
            ("forged", _) => Self::Forged,
            ("chatter", _) => Self::Chatter,
            ("spawn", _) => Self::Spawn,
            ("send", _) => Self::Send,
            ("instead", _) => Self::Instead,
            ("repeat", whose) => Self::Repeat(whose == "all"),
            ("outlive", _) => Self::Outlive,
            (number, _) => {
                let digits = number.trim_start_matches("0x");
                Self::Return(CK_RV::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no fault: {text}")))
            }
        }
    }

    /// Runs before the real call. Returns a value to return instead of the call.
    pub(crate) fn before(&self) -> Option<CK_RV> {
        match self {
            Self::Return(value) => return Some(*value),
            Self::Cry(value) => {
                eprintln!("ERROR: no such file\u{1b}[31m");
                return Some(*value);
            }
            Self::Delay(time) => std::thread::sleep(Duration::from_millis(*time)),
            Self::Hang => hang(),
            Self::Half => {
                frames::send(b"M\0\0\x02\x08{\"Signed\":{\"message\":\"");
                hang();
            }
            Self::Forged => {
                frames::send(b"M\0\0\0\x2a{\"Signed\":{\"message\":\"!\",\"signature\":\"!\"}}");
                hang();
            }
            // Faster than any reader.
            Self::Chatter => (0..8).for_each(|_| {
                drop(std::thread::spawn(|| {
                    let lines = format!("nobody asked{}\n", ".".repeat(300)).repeat(200);
                    // SAFETY: the bytes are valid. The standard library is not used, since it has one lock for all
                    // threads.
                    loop {
                        unsafe { libc::write(2, lines.as_ptr().cast(), lines.len()) };
                    }
                }))
            }),
            Self::Abort => std::process::abort(),
            Self::Flood => {
                (0..4096).for_each(|number| eprintln!("line {number} of a flood{}", ".".repeat(80)));
            }
            Self::Noise => {
                println!("noise on standard output \u{1b}[31m");
                eprintln!("noise on standard error");
                // SAFETY: a constant text. The C library buffers it until the process ends, since this is a pipe.
                unsafe { libc::puts(c"noise that was held back".as_ptr()) };
            }
            Self::Spawn => drop(std::process::Command::new("sleep").arg("600").spawn()),
            Self::Send => frames::send_file(),
            Self::Instead => {
                frames::send_file();
                hang();
            }
            Self::Outlive => attack_calls::outlive(),
            Self::After(_) | Self::Corrupt | Self::Repeat(_) | Self::Strip | Self::Widen => {}
        }
        None
    }

    /// The value to return instead of the call's own.
    pub(crate) fn after(&self) -> Option<CK_RV> {
        match self {
            Self::After(value) => Some(*value),
            _ => None,
        }
    }
}

pub(crate) fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

extern "C" fn at_exit() {
    if let Some(fault) = PLAN.enter("exit") {
        fault.before();
    }
}

fn functions() -> *mut CK_FUNCTION_LIST {
    static LIST: LazyLock<usize> = LazyLock::new(|| {
        // SAFETY: registered once; the module is never unloaded before the process ends.
        unsafe { atexit(at_exit) };
        Box::leak(Box::new(wrap::list())) as *mut CK_FUNCTION_LIST as usize
    });
    *LIST as *mut CK_FUNCTION_LIST
}

/// The entry point of every module (PKCS#11 3.0 section 5.4.4).
///
/// # Safety
/// `list` must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetFunctionList").and_then(|fault| fault.before()) {
        return value;
    }
    // SAFETY: the caller's pointer is valid by the standard; the list lives for ever.
    unsafe { *list = if PLAN.has("list:none") { std::ptr::null_mut() } else { functions() } };
    CKR_OK
}

/// The entry point of PKCS#11 3.0 (section 5.4.6).
///
/// # Safety
/// `interface` must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    _name: CK_UTF8CHAR_PTR,
    _version: CK_VERSION_PTR,
    interface: *mut *mut CK_INTERFACE,
    _flags: CK_FLAGS,
) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetInterface").and_then(|fault| fault.before()) {
        return value;
    }
    // SAFETY: the list is that of this module, and lives for ever.
    let mut list = unsafe { *functions() };
    list.version = CK_VERSION { major: 3, minor: 0 };
    for version in PLAN.values("interface:version=") {
        list.version.major = version.parse().expect("a major version");
    }
    let list: *mut CK_FUNCTION_LIST =
        if PLAN.has("interface:empty") { std::ptr::null_mut() } else { Box::leak(Box::new(list)) };
    let own =
        CK_INTERFACE { pInterfaceName: c"PKCS 11".as_ptr().cast_mut().cast(), pFunctionList: list.cast(), flags: 0 };
    // SAFETY: the caller's pointer is valid by the standard.
    unsafe { *interface = if PLAN.has("interface:none") { std::ptr::null_mut() } else { Box::leak(Box::new(own)) } };
    CKR_OK
}

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> i32;
}

/// A blank-padded field.
pub(crate) fn fill(field: &mut [u8], text: &str) {
    field.fill(b' ');
    let text = CString::new(text).unwrap();
    let length = text.as_bytes().len().min(field.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}
