//! The same scenarios on every available stack: one table, and one description for each stack.
//!
//! A new stack is one more description ([`stack::Stack`]) and one more line in the table below. No stack is skipped: a stack that cannot
//! start fails with its reason.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../e2e/fixture.rs"]
#[allow(dead_code)]
mod fixture;

#[path = "../e2e/agent.rs"]
#[allow(dead_code)]
mod agent;
#[path = "../e2e/deadline.rs"]
#[allow(dead_code)]
mod deadline;
#[path = "../e2e/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../e2e/openssl.rs"]
#[allow(dead_code)]
mod openssl;

mod enrolment;
mod kryoptic;
mod p11_kit;
mod piv;
mod piv_card;
mod scenarios;
mod softhsm2;
mod spy;
mod stack;

/// One test for each scenario, and for each additional one, on the stack that the expression makes.
macro_rules! on_stack {
    ($name:ident, $make:expr $(, $besides:ident)*) => {
        on_stack!(@each $name, $make, [
            lists_tokens_and_takes_its_uris_back,
            signs_both_versions_and_openssl_verifies,
            says_what_it_holds_and_what_a_host_lacks,
            spends_one_try_on_a_wrong_pin,
            ten_unattended_runs_with_a_wrong_pin_spend_one_try,
            says_that_a_locked_pin_is_locked,
            signs_with_an_always_authenticate_key,
            signs_in_the_sandbox_of_its_module,
            survives_a_lost_token_and_works_when_it_is_back,
            serves_and_recovers_from_a_lost_token_by_itself,
            serves_a_key_that_wants_a_login_for_each_signature,
            serves_on_after_a_reload,
            $($besides,)*
        ]);
    };
    (@each $name:ident, $make:expr, [$($scenario:ident,)*]) => {
        mod $name {
            $(
                #[test]
                fn $scenario() {
                    crate::scenarios::$scenario(&mut $make);
                }
            )*
        }
    };
}

on_stack!(on_softhsm2, crate::softhsm2::SoftHsm2::new(), asks_the_module_nothing_but_reading_login_and_signing);
// Without pkcs11-spy: the installed one does not support an interface of PKCS#11 3.2.
on_stack!(on_kryoptic, crate::kryoptic::Kryoptic::new());
on_stack!(on_p11_kit_remote, crate::p11_kit::Remote::new(), asks_the_module_nothing_but_reading_login_and_signing);
on_stack!(
    on_a_piv_card_by_ykcs11,
    crate::piv::Piv::by("ykcs11"),
    asks_the_module_nothing_but_reading_login_and_signing
);
on_stack!(
    on_a_piv_card_by_opensc,
    crate::piv::Piv::by("opensc"),
    asks_the_module_nothing_but_reading_login_and_signing
);
