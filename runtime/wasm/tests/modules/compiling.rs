//! What becomes a module and what does not.

use millstream_wasm::{COMPONENT_BYTES_MAX, Call, Limits, Module, ModuleError, componentize};

use crate::support::{ENGINE, Fragments, MODULE_WIT, with_world};

fn refusal(bytes: &[u8]) -> ModuleError {
    Module::compile(&ENGINE, bytes).unwrap_err()
}

#[test]
fn a_module_tells_its_name_and_its_hash() {
    let module = Fragments::default().module().unwrap();
    assert_eq!(module.info().name, "test");
    assert_eq!(module.sha256().len(), 64);
    assert_eq!(module.sha256(), Fragments::default().module().unwrap().sha256());
}

#[test]
fn what_is_no_webassembly_is_refused() {
    assert_eq!(refusal(b""), ModuleError::NotWasm);
    assert_eq!(refusal(b"#!/bin/sh\n"), ModuleError::NotWasm);
    assert_eq!(refusal(b"\0asm\x07\0\0\0"), ModuleError::NotWasm);
    let limit = COMPONENT_BYTES_MAX;
    assert_eq!(
        refusal(&vec![0; limit + 1]),
        ModuleError::TooLarge {
            bytes: limit + 1,
            limit
        }
    );
}

#[test]
fn a_core_module_is_refused() {
    assert_eq!(refusal(&Fragments::default().core()), ModuleError::CoreModule);
}

#[test]
fn a_cut_component_is_refused() {
    let component = Fragments::default().component();
    for end in [8, component.len() / 2, component.len() - 1] {
        let error = refusal(&component[..end]);
        assert!(
            matches!(error, ModuleError::Compile { .. } | ModuleError::OtherWorld { .. }),
            "{end}: {error}"
        );
    }
}

#[test]
fn a_component_of_another_world_is_refused() {
    let core = wat::parse_str(r#"(module (func (export "run")))"#).unwrap();
    let core = with_world(
        core,
        "package other:thing; world other { export run: func(); }",
        "other",
    );
    let error = refusal(&componentize(&core).unwrap());
    assert!(matches!(error, ModuleError::OtherWorld { .. }), "{error}");
    assert!(
        error.to_string().contains("millstream:module/transform@1.0.0"),
        "{error}"
    );
}

#[test]
fn an_export_of_another_type_is_refused() {
    let wit =
        "package millstream:module@1.0.0; interface transform { process: func(); } world odd { export transform; }";
    let core = r#"(module (func (export "millstream:module/transform@1.0.0#process")))"#;
    let core = with_world(wat::parse_str(core).unwrap(), wit, "odd");
    let error = refusal(&componentize(&core).unwrap());
    assert!(matches!(error, ModuleError::OtherWorld { .. }), "{error}");
}

#[test]
fn an_import_nobody_offers_is_named() {
    let wit = format!(
        "{MODULE_WIT}
         world odd {{ import wasi:cli/environment@0.2.0; import host; export transform; }}
         package wasi:cli@0.2.0 {{ interface environment {{ number: func() -> u32; }} }}"
    );
    let imports = r#"(import "wasi:cli/environment@0.2.0" "number" (func (result i32)))"#;
    let core = Fragments {
        imports,
        ..Fragments::default()
    }
    .core();
    let error = refusal(&componentize(&with_world(core, &wit, "odd")).unwrap());
    assert_eq!(
        error,
        ModuleError::UnknownImport {
            name: "wasi:cli/environment@0.2.0".into()
        }
    );
}

#[test]
fn a_host_function_nobody_offers_is_named() {
    let wit = MODULE_WIT.replace("count: func(", "random: func() -> u64; count: func(");
    let imports = r#"(import "millstream:module/host@1.0.0" "random" (func (result i64)))"#;
    let core = Fragments {
        imports,
        ..Fragments::default()
    }
    .core();
    let error = refusal(&componentize(&with_world(core, &wit, "module")).unwrap());
    assert_eq!(
        error,
        ModuleError::UnknownImport {
            name: "millstream:module/host@1.0.0#random".into()
        }
    );
}

#[test]
fn only_a_core_module_that_fits_its_world_is_componentized() {
    let without_section = Fragments::default().core();
    let component = componentize(&without_section).unwrap();
    assert_eq!(Module::compile(&ENGINE, &component).unwrap().info().name, "test");
    assert_eq!(componentize(b"nothing"), Err(ModuleError::NotWasm));
    let component = Fragments::default().component();
    assert!(matches!(
        componentize(&component),
        Err(ModuleError::Componentize { .. })
    ));
    let incomplete = with_world(wat::parse_str("(module)").unwrap(), MODULE_WIT, "module");
    for incomplete in [incomplete, wat::parse_str("(module)").unwrap()] {
        let error = componentize(&incomplete).unwrap_err();
        assert!(error.to_string().contains("transform@1.0.0"), "{error}");
        assert!(error.to_string().ends_with("such as #[filter]"), "{error}");
    }
    for foreign in ["wasi_snapshot_preview1", "env"] {
        let importing = format!(r#"(module (import "{foreign}" "f" (func)))"#);
        let error = componentize(&wat::parse_str(importing).unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("wasm32-unknown-unknown"), "{error}");
    }
}

#[test]
fn a_module_without_a_name_is_refused() {
    let nameless = Fragments {
        describe: "(i32.const 5000)",
        ..Fragments::default()
    };
    assert_eq!(
        nameless.module().unwrap_err(),
        ModuleError::Info {
            what: "its own name is empty".into()
        }
    );
}

#[test]
fn parameters_a_module_refuses_are_told_in_its_words() {
    let configure = "(i32.store8 (i32.const 4096) (i32.const 1)) (i32.store (i32.const 4100) (i32.const 3004))
        (i32.store (i32.const 4104) (i32.const 5)) (i32.const 4096)";
    let error = Fragments {
        configure,
        ..Fragments::default()
    }
    .instance(&Limits::default())
    .err()
    .unwrap();
    assert_eq!(error, ModuleError::Refused { reason: "words".into() });
}

#[test]
fn a_module_that_starts_too_large_is_refused() {
    let error = Fragments {
        pages: 1025,
        ..Fragments::default()
    }
    .module()
    .unwrap_err();
    assert_eq!(
        error,
        ModuleError::Memory {
            call: Call::Start,
            wanted: 1025 << 16,
            limit: 64 << 20
        }
    );
}
