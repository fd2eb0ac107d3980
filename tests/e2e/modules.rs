//! Modules as found on hosts: unusual entry points, libraries beside them, and files that are not modules.

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run, faulty_module, needs_root, softhsm_module};

/// A module over the one in `SHIM_MODULE`. It exports only `C_GetFunctionList`.
const SHIM: &str = r#"
#include <dlfcn.h>
#include <stdlib.h>
unsigned long C_GetFunctionList(void **list) {
    void *real = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
    unsigned long (*get)(void **) = (unsigned long (*)(void **))dlsym(real, "C_GetFunctionList");
    return get(list);
}
"#;

/// A fixture whose module is a C source, compiled with these additional arguments.
fn compiled(source: &str, arguments: &[&str]) -> Fixture {
    let mut fixture = Fixture::new();
    std::fs::copy(faulty_module(), fixture.file("libdecoy.so")).unwrap();
    fixture.write("module.c", source);
    let usual = ["-shared", "-fPIC", "-o", "module.so", "module.c", "-Wl,--no-as-needed", "-L.", "-Wl,-rpath,$ORIGIN"];
    fixture.tool("cc", &[&usual[..], arguments].concat());
    fixture.faulty("label=decoy");
    fixture.set("SHIM_MODULE", softhsm_module());
    let module = fixture.file("module.so");
    fixture.use_module(Some(&module));
    fixture
}

fn token_of(run: Run) -> String {
    let list: serde_json::Value = serde_json::from_str(&run.ok()).unwrap();
    list["modules"][0]["slots"][0]["token"]["label"].as_str().unwrap().to_owned()
}

#[test]
fn a_module_without_usable_interfaces_works_through_its_function_list() {
    let mut fixture = Fixture::new();
    for rules in [
        "C_GetInterface=0x54",
        "C_GetInterface=0x5",
        "C_GetInterface=abort",
        "interface:none",
        "interface:empty",
        "interface:version=0",
        "interface:version=255",
    ] {
        fixture.faulty(rules);
        fixture.sign(&[]).ok();
        assert_eq!(token_of(fixture.run(&["list", "--json"])), "cba", "{rules}");
    }
}

#[test]
fn a_module_without_a_function_list_works_through_its_interface() {
    let mut fixture = Fixture::new();
    for rules in ["C_GetFunctionList=0x54", "list:none"] {
        fixture.faulty(rules);
        fixture.sign(&[]).ok();
    }
    for (rules, cause) in [
        ("C_GetFunctionList=0x54;C_GetInterface=0x54", "C_GetFunctionList: CKR_FUNCTION_NOT_SUPPORTED"),
        ("list:none;interface:none", "C_GetFunctionList: the module returned no function list"),
        ("list:none;interface:empty", "C_GetFunctionList: the module returned no function list"),
        ("list:none;interface:version=9", "C_GetFunctionList: the module returned no function list"),
    ] {
        fixture.faulty(rules);
        let error = fixture.sign(&[]).failed(6);
        assert!(error.contains(cause), "{rules}: {error}");
    }
}

#[test]
fn a_library_that_a_module_is_linked_to_never_replaces_it() {
    let fixture = compiled(SHIM, &["-l:libdecoy.so"]);
    assert_eq!(token_of(fixture.run(&["list", "--json"])), "cba");
    fixture.sign(&[]).ok();
    assert_eq!(fixture.read("calls"), "", "nothing was called in the library");
    // A symbolic link to the module works, also if the loader knows the file only by the link's name.
    let link = fixture.file("link.so");
    std::os::unix::fs::symlink(fixture.file("module.so"), &link).unwrap();
    fixture.sign(&["--module", &link]).ok();
    let source = fixture.pin_source();
    let mut command = fixture.command(&["sign", "--pin-source", &source]);
    Run::from_output(command.env("LD_PRELOAD", &link).output().unwrap()).ok();
}

#[test]
fn a_module_without_its_own_entry_point_is_refused_by_name() {
    let fixture = compiled("int no_entry_point;", &["-l:libdecoy.so"]);
    let error = fixture.sign(&[]).failed(3);
    assert!(error.contains("it has no C_GetFunctionList"), "{error}");
    assert!(error.contains("libdecoy.so"), "{error}");
    assert_eq!(fixture.read("calls"), "");
}

/// The error of `sign` about a module's file.
fn said_of(fixture: &mut Fixture, file: &str) -> String {
    let module = fixture.file(file);
    fixture.use_module(Some(&module));
    let error = fixture.sign(&[]).failed(3);
    assert!(error.starts_with(&format!("error: cannot load the module {module}: ")), "{error}");
    error
}

#[test]
fn a_file_that_is_not_a_module_for_this_host_is_described() {
    let mut fixture = Fixture::new();
    let module = std::fs::read(faulty_module()).unwrap();
    let with = |at: usize, byte: u8| {
        let mut file = module.clone();
        file[at] = byte;
        file
    };
    let machine = if cfg!(target_arch = "aarch64") { (62, "x86-64") } else { (183, "ARM64") };
    fixture.write("object.c", "int x;");
    fixture.write("program.c", "int main(void) { return 0; }");
    fixture.tool("cc", &["-c", "-o", "object.so", "object.c"]);
    fixture.tool("cc", &["-o", "program.so", "program.c"]);
    for (file, content, words) in [
        ("machine.so", with(18, machine.0), format!("it is built for {}, and this program for", machine.1)),
        ("class.so", with(4, 1), ", and this program for".into()),
        ("truncated.so", module[..4096].to_vec(), "the file is truncated: it has 4096 bytes".into()),
        ("header.so", module[..40].to_vec(), "a damaged ELF file".into()),
        ("empty.so", Vec::new(), "it is an empty file, not a shared library".into()),
        ("script.so", b"/* GNU ld script */\nGROUP ( libx.so.1 )\n".to_vec(), "a linker script".into()),
        ("text.so", b"no library".to_vec(), "it is a text, not a shared library".into()),
        ("archive.so", b"!<arch>\nx".to_vec(), "a static library".into()),
        ("windows.so", b"MZ\0\0".to_vec(), "a Windows library".into()),
        ("object.so", std::fs::read(fixture.file("object.so")).unwrap(), "an object file".into()),
        ("program.so", std::fs::read(fixture.file("program.so")).unwrap(), "a program, not a shared library".into()),
    ] {
        fixture.write(file, content);
        let error = said_of(&mut fixture, file);
        assert!(error.contains(&words), "{file}: {error}");
    }
    let error = said_of(&mut fixture, "script.so");
    assert!(error.contains("hint: the script names libx.so.1"), "{error}");
}

#[test]
fn missing_libraries_and_symbols_of_a_module_are_named() {
    let mut fixture = Fixture::new();
    fixture.write("user.c", "int x(void); int C_GetFunctionList(void) { return x(); }");
    fixture.write("used.c", "int x(void) { return 1; }");
    fixture.write("symbol.c", "extern int missing; int C_GetFunctionList(void) { return missing; }");
    fixture.write("function.c", "int missing(void); int C_GetFunctionList(void) { return missing(); }");
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "function.so", "function.c"]);
    let library = |fixture: &Fixture, version: &str| {
        fixture.write("versions", format!("{version} {{ global: x; local: *; }};"));
        let versions = "-Wl,--version-script=versions";
        fixture.tool("cc", &["-shared", "-fPIC", versions, "-Wl,-soname,libused.so.3", "-o", "libused.so.3", "used.c"]);
    };
    library(&fixture, "GLIBC_2.99");
    let user = ["-shared", "-fPIC", "-o", "user.so", "user.c", "-L.", "-l:libused.so.3", "-Wl,-rpath,$ORIGIN"];
    fixture.tool("cc", &user);
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "symbol.so", "symbol.c"]);
    library(&fixture, "GLIBC_2.31");
    let error = said_of(&mut fixture, "user.so");
    assert!(error.contains("it needs GLIBC_2.99, and ") && error.contains("libused.so.3 of this host"), "{error}");
    assert!(error.contains("hint: install the module's build for this distribution"), "{error}");
    fixture.write("libused.so.3", "no library");
    let error = said_of(&mut fixture, "user.so");
    assert!(error.contains("libused.so.3, which cannot be used: "), "{error}");
    std::fs::remove_file(fixture.file("libused.so.3")).unwrap();
    let error = said_of(&mut fixture, "user.so");
    assert!(error.contains("it needs the library libused.so.3, which is missing"), "{error}");
    assert!(error.contains("`apt-file search libused.so.3`"), "{error}");
    // The loader looks up a variable when it loads, and a function at its first call, where it ends the process.
    for module in ["symbol.so", "function.so"] {
        let error = said_of(&mut fixture, module);
        assert!(error.contains("it needs the symbol missing, which no library defines"), "{error}");
    }
}

#[test]
fn a_module_on_a_noexec_file_system_is_named() {
    needs_root("it makes a mount namespace");
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.file("noexec")).unwrap();
    let script = format!(
        "mount -t tmpfs -o noexec,size=64m tmpfs {0}/noexec && cp {1} {0}/noexec/m.so && exec \"$@\"",
        fixture.path().display(),
        faulty_module().display()
    );
    let source = fixture.pin_source();
    let mut command = fixture.in_mount_namespace(&script);
    command.args(["sign", "--pin-source", &source]);
    command.env("CBA_AGENT_MODULE", fixture.file("noexec/m.so"));
    let error = Run::from_output(command.finish()).failed(3);
    assert!(error.contains("noexec/m.so is on a file system that is mounted noexec"), "{error}");
    assert!(error.contains("hint: move it to a file system without noexec"), "{error}");
}

#[test]
fn the_readme_lists_the_name_of_every_known_module() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let row = readme.lines().find(|line| line.starts_with("| `--module ")).unwrap();
    let error = Fixture::empty().run(&["list", "--module", "no-such-module"]).failed(3);
    let names = error.lines().find_map(|line| line.split_once("or one of: ")).unwrap().1;
    assert!(row.contains(&format!(" `{}`.", names.replace(", ", " "))), "{names} / {row}");
}
