//! Builds small modules out of fragments of WebAssembly text.
//!
//! Their memory: at 1024 the answer of every call (all zero: ok, unchanged, nothing rejected), at 2048 the info with
//! the name at 3000, at 4096 room for what a fragment likes, from 64 KiB on what the host hands over.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use millstream_batch::encode_record;
use millstream_wasm::{
    Engine, Input, Instance, Level, Limits, Module, ModuleError, Observer, Outcome, Runner, StageContext, componentize,
};
use wit_component::StringEncoding;
use wit_parser::Resolve;

pub const MODULE_WIT: &str = include_str!("../../../../sdk/wit/module.wit");

pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new().unwrap());

/// The parts of a module that differ from one that returns everything unchanged.
pub struct Fragments<'a> {
    /// Imports beside the host's.
    pub imports: &'a str,
    /// Further items.
    pub items: &'a str,
    /// 64 KiB pages of memory it starts with.
    pub pages: u32,
    /// What its allocator does first.
    pub allocate: &'a str,
    /// Bodies, each giving the address of its answer.
    pub describe: &'a str,
    pub configure: &'a str,
    pub process: &'a str,
}

impl Default for Fragments<'_> {
    fn default() -> Self {
        Fragments {
            imports: "",
            items: "",
            pages: 64,
            allocate: "",
            describe: "(i32.const 2048)",
            configure: "(i32.const 1024)",
            process: "(i32.const 1024)",
        }
    }
}

impl Fragments<'_> {
    pub fn core(&self) -> Vec<u8> {
        wat::parse_str(self.text()).unwrap()
    }

    /// A module of the same exports, without imports.
    pub fn shape(&self) -> Vec<u8> {
        let name = |function: &str| format!("millstream:module/transform@1.0.0#{function}");
        let (describe, configure, process) = (name("describe"), name("configure"), name("process"));
        let text = format!(
            r#"(module (memory (export "memory") 1)
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
              (func (export "{describe}") (result i32) unreachable)
              (func (export "{configure}") (param i32 i32 i32 i32 i32) (result i32) unreachable)
              (func (export "{process}") (param i32 i32 i64 i64 i64 i32 i32 i32) (result i32) unreachable))"#
        );
        wat::parse_str(text).unwrap()
    }

    pub fn text(&self) -> String {
        let Fragments {
            imports,
            items,
            pages,
            allocate,
            describe,
            configure,
            process,
        } = self;
        format!(
            r#"(module {imports}
  (import "millstream:module/host@1.0.0" "log" (func $log (param i32 i32 i32)))
  (import "millstream:module/host@1.0.0" "count" (func $count_host (param i32 i32 i64)))
  (memory (export "memory") {pages})
  (data (i32.const 2048) "\b8\0b\00\00\04\00\00\00")
  (data (i32.const 3000) "testwords")
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32) (local $at i32)
    {allocate}
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func $keep (param $ptr i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1028) (i32.const 1))
    (i32.store (i32.const 1032) (local.get $ptr)) (i32.store (i32.const 1036) (local.get $len))
    (i32.const 1024))
  (func $rewrite (param $counts i32) (param $n i32) (param $ptr i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1028) (i32.const 2))
    (i32.store (i32.const 1032) (local.get $counts)) (i32.store (i32.const 1036) (local.get $n))
    (i32.store (i32.const 1040) (local.get $ptr)) (i32.store (i32.const 1044) (local.get $len))
    (i32.const 1024))
  (func $reject (param $index i32) (result i32)
    (i32.store (i32.const 1048) (i32.const 1200)) (i32.store (i32.const 1052) (i32.const 1))
    (i32.store (i32.const 1200) (local.get $index))
    (i32.store (i32.const 1204) (i32.const 3004)) (i32.store (i32.const 1208) (i32.const 5))
    (i32.const 1024))
  (func (export "millstream:module/transform@1.0.0#describe") (result i32) {describe})
  (func (export "millstream:module/transform@1.0.0#configure")
    (param i32 i32 i32 i32 i32) (result i32) {configure})
  (func (export "millstream:module/transform@1.0.0#process")
    (param $partition i32) (param $some i32) (param $first i64) (param $append i64) (param $base i64)
    (param $count i32) (param $ptr i32) (param $len i32) (result i32) (local $i i32) (local $at i32)
    {process})
  (func (export "cabi_post_millstream:module/transform@1.0.0#process") (param i32)
    (global.set $heap (i32.const 65536)))
  {items})"#
        )
    }

    pub fn component(&self) -> Vec<u8> {
        componentize(&with_world(self.core(), MODULE_WIT, "module")).unwrap()
    }

    pub fn module(&self) -> Result<Module, ModuleError> {
        Module::compile(&ENGINE, &self.component())
    }

    pub fn runner(&self, limits: &Limits) -> Runner {
        runner(&ENGINE, self.module().unwrap(), limits, Arc::new(Heard::default()))
    }

    pub fn instance(&self, limits: &Limits) -> Result<Instance, ModuleError> {
        let context = StageContext {
            topic: "logs".into(),
            on_fetch: false,
        };
        Instance::new(&self.module()?, limits, &context, &[("word".into(), "mill".into())])
    }
}

/// A module whose `process` is `body`.
pub fn processing(body: &str) -> Fragments<'_> {
    Fragments {
        process: body,
        ..Fragments::default()
    }
}

pub fn runner(engine: &Engine, module: Module, limits: &Limits, observer: Arc<dyn Observer>) -> Runner {
    let context = StageContext {
        topic: "logs".into(),
        on_fetch: false,
    };
    let params = vec![("word".into(), "mill".into())];
    Runner::new(engine, module, limits.clone(), context, params, observer)
}

/// Remembers what a module said.
#[derive(Default)]
pub struct Heard {
    pub lines: Mutex<Vec<(Level, String)>>,
    pub counts: Mutex<BTreeMap<String, u64>>,
}

impl Observer for Heard {
    fn log(&self, level: Level, line: &str) {
        self.lines.lock().unwrap().push((level, line.to_owned()));
    }
    fn count(&self, name: &str, by: u64) {
        *self.counts.lock().unwrap().entry(name.to_owned()).or_default() += by;
    }
}

/// Adds the section that names a core module's world.
pub fn with_world(mut core: Vec<u8>, wit: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).unwrap();
    core
}

/// Limits under which a test ends soon.
pub fn tight() -> Limits {
    Limits {
        cpu_deadline: Duration::from_millis(20),
        ..Limits::default()
    }
}

pub fn records(values: &[&str]) -> Vec<u8> {
    let mut records = Vec::new();
    for (index, value) in (0..).zip(values) {
        encode_record(&mut records, 1, index, None, Some(value.as_bytes()), std::iter::empty());
    }
    records
}

pub fn input(count: usize, records: &[u8]) -> Input<'_> {
    let count = u32::try_from(count).unwrap();
    Input {
        partition: 3,
        first_offset: None,
        append_time_ms: 2_000,
        base_timestamp_ms: 1_000,
        count,
        records,
    }
}

pub fn process(instance: &mut Instance, values: &[&str]) -> Result<Outcome, ModuleError> {
    instance.process(input(values.len(), &records(values)))
}
