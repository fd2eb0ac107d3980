//! Modules as they are found on hosts: odd entry points, libraries beside them, files that are no module.

use crate::stand::{Run, Stand, faulty_module, softhsm_module};

/// A module over another one, which `SHIM_MODULE` names. It exports nothing but `C_GetFunctionList`.
const SHIM: &str = r#"
#include <dlfcn.h>
#include <stdlib.h>
unsigned long C_GetFunctionList(void **list) {
    void *real = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
    unsigned long (*get)(void **) = (unsigned long (*)(void **))dlsym(real, "C_GetFunctionList");
    return get(list);
}
"#;

/// A stand whose module is a C source, compiled with these arguments beside the usual ones.
fn compiled(source: &str, arguments: &[&str]) -> Stand {
    let mut stand = Stand::new();
    std::fs::copy(faulty_module(), stand.file("libdecoy.so")).unwrap();
    stand.write("module.c", source);
    let usual = ["-shared", "-fPIC", "-o", "module.so", "module.c", "-Wl,--no-as-needed", "-L.", "-Wl,-rpath,$ORIGIN"];
    stand.tool("cc", &[&usual[..], arguments].concat());
    stand.faulty("label=decoy");
    stand.set("SHIM_MODULE", softhsm_module());
    let module = stand.file("module.so");
    stand.use_module(Some(&module));
    stand
}

fn token_of(run: Run) -> String {
    let list: serde_json::Value = serde_json::from_str(&run.ok()).unwrap();
    list["modules"][0]["slots"][0]["token"]["label"].as_str().unwrap().to_owned()
}

#[test]
fn a_module_whose_interfaces_cannot_be_had_works_by_its_function_list() {
    let mut stand = Stand::new();
    for rules in [
        "C_GetInterface=0x54",
        "C_GetInterface=0x5",
        "C_GetInterface=abort",
        "interface:none",
        "interface:empty",
        "interface:version=0",
        "interface:version=255",
    ] {
        stand.faulty(rules);
        stand.sign(&[]).ok();
        assert_eq!(token_of(stand.run(&["list", "--json"])), "cba", "{rules}");
    }
}

#[test]
fn a_module_whose_function_list_cannot_be_had_works_by_its_interface() {
    let mut stand = Stand::new();
    for rules in ["C_GetFunctionList=0x54", "list:none"] {
        stand.faulty(rules);
        stand.sign(&[]).ok();
    }
    for (rules, cause) in [
        ("C_GetFunctionList=0x54;C_GetInterface=0x54", "C_GetFunctionList: CKR_FUNCTION_NOT_SUPPORTED"),
        ("list:none;interface:none", "C_GetFunctionList: the module returned no function list"),
        ("list:none;interface:empty", "C_GetFunctionList: the module returned no function list"),
        ("list:none;interface:version=9", "C_GetFunctionList: the module returned no function list"),
    ] {
        stand.faulty(rules);
        let error = stand.sign(&[]).failed(6);
        assert!(error.contains(cause), "{rules}: {error}");
    }
}

#[test]
fn a_library_that_a_module_is_linked_to_never_stands_in_for_it() {
    let stand = compiled(SHIM, &["-l:libdecoy.so"]);
    assert_eq!(token_of(stand.run(&["list", "--json"])), "cba");
    stand.sign(&[]).ok();
    assert_eq!(stand.read("calls"), "", "nothing was called in the library");
    // A symbolic link to the module is the module, also where the loader knows the file by the link's name alone.
    let link = stand.file("link.so");
    std::os::unix::fs::symlink(stand.file("module.so"), &link).unwrap();
    stand.sign(&["--module", &link]).ok();
    let source = stand.pin_source();
    let mut command = stand.command(&["sign", "--pin-source", &source]);
    Run::from_output(command.env("LD_PRELOAD", &link).output().unwrap()).ok();
}

#[test]
fn a_module_without_an_entry_point_of_its_own_is_refused_by_name() {
    let stand = compiled("int no_entry_point;", &["-l:libdecoy.so"]);
    let error = stand.sign(&[]).failed(3);
    assert!(error.contains("it has no C_GetFunctionList of its own"), "{error}");
    assert!(error.contains("libdecoy.so"), "{error}");
    assert_eq!(stand.read("calls"), "");
}
