//! The kernel's answer to the question who owns a connection: only that connection names a user.

#![no_main]
#![allow(missing_docs)]

use cba_gateway::sock_diag::message::Connection;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &[u8]| {
    let (Ok(caller), Ok(server)) = ("127.0.0.1:40000".parse(), "127.0.0.1:731".parse()) else { return };
    if Connection::new(caller, server).owner(answer).is_ok() {
        // The state is "established", and the ports stand where the kernel puts them.
        assert_eq!(answer.get(17), Some(&1));
        assert_eq!(answer.get(20..24), Some(&[0x9c, 0x40, 0x02, 0xdb][..]));
    }
});
