//! The number of a PKCS#11 mechanism, and its name.
//!
//! PURE. A worker sends the number, and the parent finds the name: a module cannot choose the text in a report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A `CK_MECHANISM_TYPE`. Its text is the name in PKCS#11, or `CKM 0x...` for a mechanism that is not for RSA keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MechanismId(pub u64);

/// The mechanisms for RSA keys (PKCS#11 3.1, pkcs11t.h).
const NAMES: [(u64, &str); 34] = [
    (0x0000, "CKM_RSA_PKCS_KEY_PAIR_GEN"),
    (0x0001, "CKM_RSA_PKCS"),
    (0x0002, "CKM_RSA_9796"),
    (0x0003, "CKM_RSA_X_509"),
    (0x0004, "CKM_MD2_RSA_PKCS"),
    (0x0005, "CKM_MD5_RSA_PKCS"),
    (0x0006, "CKM_SHA1_RSA_PKCS"),
    (0x0007, "CKM_RIPEMD128_RSA_PKCS"),
    (0x0008, "CKM_RIPEMD160_RSA_PKCS"),
    (0x0009, "CKM_RSA_PKCS_OAEP"),
    (0x000a, "CKM_RSA_X9_31_KEY_PAIR_GEN"),
    (0x000b, "CKM_RSA_X9_31"),
    (0x000c, "CKM_SHA1_RSA_X9_31"),
    (0x000d, "CKM_RSA_PKCS_PSS"),
    (0x000e, "CKM_SHA1_RSA_PKCS_PSS"),
    (0x0040, "CKM_SHA256_RSA_PKCS"),
    (0x0041, "CKM_SHA384_RSA_PKCS"),
    (0x0042, "CKM_SHA512_RSA_PKCS"),
    (0x0043, "CKM_SHA256_RSA_PKCS_PSS"),
    (0x0044, "CKM_SHA384_RSA_PKCS_PSS"),
    (0x0045, "CKM_SHA512_RSA_PKCS_PSS"),
    (0x0046, "CKM_SHA224_RSA_PKCS"),
    (0x0047, "CKM_SHA224_RSA_PKCS_PSS"),
    (0x0060, "CKM_SHA3_256_RSA_PKCS"),
    (0x0061, "CKM_SHA3_384_RSA_PKCS"),
    (0x0062, "CKM_SHA3_512_RSA_PKCS"),
    (0x0063, "CKM_SHA3_256_RSA_PKCS_PSS"),
    (0x0064, "CKM_SHA3_384_RSA_PKCS_PSS"),
    (0x0065, "CKM_SHA3_512_RSA_PKCS_PSS"),
    (0x0066, "CKM_SHA3_224_RSA_PKCS"),
    (0x0067, "CKM_SHA3_224_RSA_PKCS_PSS"),
    (0x1054, "CKM_RSA_AES_KEY_WRAP"),
    (0x4001, "CKM_RSA_PKCS_TPM_1_1"),
    (0x4002, "CKM_RSA_PKCS_OAEP_TPM_1_1"),
];

impl fmt::Display for MechanismId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.binary_search_by_key(&self.0, |(number, _)| *number) {
            Ok(at) => f.write_str(NAMES[at].1),
            Err(_) => write!(f, "CKM {:#010x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mechanism_has_the_name_that_another_library_gives_it() {
        assert!(NAMES.is_sorted());
        for (number, name) in NAMES {
            assert_eq!(MechanismId(number).to_string(), name);
            // cryptoki has a type for only some mechanisms.
            if let Ok(known) = cryptoki::mechanism::MechanismType::try_from(number) {
                assert_eq!(known.to_string(), name);
            }
        }
        assert_eq!(MechanismId(0x8000_0001).to_string(), "CKM 0x80000001");
        assert_eq!(MechanismId(u64::MAX).to_string(), "CKM 0xffffffffffffffff");
    }
}
