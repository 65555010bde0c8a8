//! Whatever is deployed: it becomes a module or an error that says why not, in bounded time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arbitrary::Unstructured;
use millstream_wasm::{COMPONENT_BYTES_MAX, Call, Limits, Module, ModuleError, componentize};
use wasm_smith::Config;

use crate::running::run;
use crate::support::{ENGINE, Fragments, MODULE_WIT, runner, with_world};

const SEEDS: u64 = 500;
/// Random bytes that one generated module is made from.
const ENTROPY_BYTES: usize = 2 << 10;
/// The size of the module that somebody deploys by mistake.
const LARGE: usize = 60 << 20;

/// How far a generated module came.
#[derive(Debug, Default)]
struct Fates {
    refused: u32,
    run: u32,
}

#[test]
fn generated_modules_do_no_harm() {
    let mut fates = Fates::default();
    for seed in 0..SEEDS {
        let thrown = catch_unwind(AssertUnwindSafe(|| throw(seed)));
        match thrown.unwrap_or_else(|_| panic!("seed {seed} panicked")) {
            Err(error) if was_run(&error) => fates.run += 1,
            Err(_) => fates.refused += 1,
            Ok(()) => fates.run += 1,
        }
    }
    assert!(
        u64::from(fates.run) > SEEDS / 4,
        "too few came as far as being called: {fates:?}"
    );
    assert_eq!(ENGINE.guest_memory().bytes_max, 1 << 30);
    let mut good = Fragments::default().runner(&Limits::default());
    run(&mut good, &["a"]).unwrap();
}

/// Throws a module at the host as it is, and as a component that is called.
fn throw(seed: u64) -> Result<(), ModuleError> {
    let raw = generated(seed, Config::default());
    assert_eq!(Module::compile(&ENGINE, &raw).unwrap_err(), ModuleError::CoreModule);
    let fitting = Config {
        exports: Some(Fragments::default().shape()),
        max_imports: 0,
        max_memory32_bytes: 1 << 24,
        reference_types_enabled: false,
        exceptions_enabled: false,
        threads_enabled: false,
        gc_enabled: false,
        ..Config::default()
    };
    let component = componentize(&with_world(generated(seed, fitting), MODULE_WIT, "module"))?;
    let module = Module::compile(&ENGINE, &component)?;
    let mut runner = runner(
        &ENGINE,
        module,
        &Limits::default(),
        std::sync::Arc::new(millstream_wasm::Unheard),
    );
    run(&mut runner, &["a", "b"]).map(drop)
}

fn generated(seed: u64, config: Config) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let entropy: Vec<u8> = (0..ENTROPY_BYTES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    let mut entropy = Unstructured::new(&entropy);
    let module = wasm_smith::Module::new(config, &mut entropy).expect("there is entropy enough");
    module.to_bytes()
}

fn was_run(error: &ModuleError) -> bool {
    match error {
        ModuleError::Trap { call, .. } | ModuleError::Deadline { call, .. } => *call != Call::Start,
        ModuleError::Memory { .. } | ModuleError::Tables { .. } | ModuleError::Info { .. } => true,
        other => other.is_module_fault(),
    }
}

/// A section of a module or component.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut section = vec![id];
    let mut length = content.len();
    while length >= 0x80 {
        section.push(length as u8 | 0x80);
        length >>= 7;
    }
    section.push(length as u8);
    section.extend_from_slice(content);
    section
}

#[test]
fn sixty_megabytes_that_are_not_code_are_taken() {
    let custom = [&[4][..], b"junk", &vec![7; LARGE]].concat();
    let component = [Fragments::default().component(), section(0, &custom)].concat();
    assert!(component.len() < COMPONENT_BYTES_MAX);
    let module = Module::compile(&ENGINE, &component).unwrap();
    assert_eq!(module.info().name, "test");
}

#[test]
fn sixty_megabytes_of_code_are_refused_before_they_are_compiled() {
    let core = [b"\0asm\x01\0\0\0", &section(10, &vec![0; LARGE])[..]].concat();
    let component = [b"\0asm\x0d\0\x01\0", &section(1, &core)[..]].concat();
    let error = Module::compile(&ENGINE, &component).unwrap_err();
    assert!(
        matches!(error, ModuleError::TooMuchCode { bytes: LARGE, .. }),
        "{error}"
    );
}

fn built_against(version: &str) -> ModuleError {
    let wit = MODULE_WIT.replace("millstream:module@1.0.0", &format!("millstream:module@{version}"));
    let core = Fragments::default().text().replace("@1.0.0", &format!("@{version}"));
    let core = wat::parse_str(core).unwrap();
    let component = componentize(&with_world(core, &wit, "module")).unwrap();
    Module::compile(&ENGINE, &component).unwrap_err()
}

#[test]
fn a_module_built_against_a_newer_contract_is_told_so() {
    for version in ["1.1.0", "2.0.0"] {
        let error = built_against(version);
        assert_eq!(
            error,
            ModuleError::NewerContract {
                version: version.into()
            }
        );
        let message = error.to_string();
        assert!(message.contains(version) && message.contains("1.0.0"), "{message}");
    }
}

#[test]
fn a_module_built_against_an_older_contract_names_what_it_misses() {
    let error = built_against("0.9.0");
    assert!(
        matches!(&error, ModuleError::UnknownImport { name } if name.ends_with("@0.9.0")),
        "{error}"
    );
}

#[test]
fn what_a_module_imports_and_exports_is_shown() {
    let module = Fragments::default().module().unwrap();
    assert_eq!(module.imports(), ["millstream:module/host@1.0.0"]);
    assert_eq!(module.exports(), ["millstream:module/transform@1.0.0"]);
}
