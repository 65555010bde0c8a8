//! Small modules out of WebAssembly text, for what no guest SDK would let an author do.
//!
//! Their memory: at 1024 the answer of every call (all zero: ok, unchanged, nothing rejected), at 2048 the info with the
//! name at 3000, from 4096 on room for what a body likes, from 64 KiB on what the host hands over. A body is that of
//! `process`, and finds `$count` records at `$ptr`, `$len` bytes of them.

use bytes::Bytes;
use millstream_wasm::componentize;
use wit_component::StringEncoding;
use wit_parser::Resolve;

const MODULE_WIT: &str = include_str!("../../sdk/wit/module.wit");

/// Never returns.
pub const LOOPS: &str = "(loop $l (br $l)) (unreachable)";
/// Takes more and more memory.
pub const ALLOCATES: &str = "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)";
/// Says that the first of its records has become one of eight bytes that are none.
pub const RETURNS_NO_RECORDS: &str =
    "(i64.store (i32.const 4096) (i64.const 1)) (i64.store (i32.const 4200) (i64.const -1))
    (call $rewrite (i32.const 4096) (local.get $count) (i32.const 4200) (i32.const 8))";
/// Makes two of a batch's only record.
pub const DOUBLES: &str = "(i32.store (i32.const 4096) (i32.const 2))
    (memory.copy (i32.const 4200) (local.get $ptr) (local.get $len))
    (memory.copy (i32.add (i32.const 4200) (local.get $len)) (local.get $ptr) (local.get $len))
    (call $rewrite (i32.const 4096) (local.get $count) (i32.const 4200) (i32.mul (local.get $len) (i32.const 2)))";
/// Routes to an output.
pub const ROUTES: &str =
    "(i32.store (i32.const 1056) (i32.const 4096)) (i32.store (i32.const 1060) (i32.const 1)) (i32.const 1024)";
/// Traps.
pub const TRAPS: &str = "(unreachable)";
/// Drops every second record of a batch of up to 32: those at odd positions.
pub const HALVES: &str = "(i32.store (i32.const 4096)
      (i32.and (i32.const 0x55555555) (i32.sub (i32.shl (i32.const 1) (local.get $count)) (i32.const 1))))
    (i32.store8 (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 4096))
    (i32.store (i32.const 1036) (i32.shr_u (i32.add (local.get $count) (i32.const 7)) (i32.const 3)))
    (i32.const 1024)";
/// Answers with a bitmap that is a byte too long.
pub const KEEPS_TOO_MANY: &str = "(i32.store8 (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 4096))
    (i32.store (i32.const 1036) (i32.add (i32.shr_u (i32.add (local.get $count) (i32.const 7)) (i32.const 3)) (i32.const 1)))
    (i32.const 1024)";
/// Calls itself without end; with [`RECURSION`].
pub const RECURSES: &str = "(call $down (i32.const 1))";
/// What [`RECURSES`] calls.
pub const RECURSION: &str = "(func $down (param i32) (result i32)
    (i32.add (call $down (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
/// Makes a table larger and larger; with [`TABLE`].
pub const FILLS_TABLES: &str =
    "(loop $l (br_if $l (i32.ge_s (table.grow $t (ref.null func) (i32.const 1024)) (i32.const 0))))
    (unreachable)";
/// What [`FILLS_TABLES`] fills.
pub const TABLE: &str = "(table $t 0 funcref)";
/// Logs 64 KiB of text again and again, for ever; with [`LOG`].
pub const FLOODS_THE_LOG: &str = "(memory.fill (i32.const 4096) (i32.const 120) (i32.const 61440))
    (loop $l (call $log (i32.const 2) (i32.const 4096) (i32.const 61440)) (br $l)) (unreachable)";
/// The same two hundred times, and leaves the records as they are; with [`LOG`].
pub const LOGS_A_LOT: &str = "(local $i i32) (memory.fill (i32.const 4096) (i32.const 120) (i32.const 61440))
    (loop $l (call $log (i32.const 2) (i32.const 4096) (i32.const 61440))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 200))))
    (i32.const 1024)";
/// What [`LOGS_A_LOT`] logs of one batch.
pub const LOGS_A_LOT_BYTES: u64 = 200 * 61_440;
/// What those that log import.
pub const LOG: &str = r#"(import "millstream:module/host@1.0.0" "log" (func $log (param i32 i32 i32)))"#;
/// Drops every record of a batch of fewer than eight thousand.
pub const KEEPS_NONE: &str = "(i32.store8 (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 4096))
    (i32.store (i32.const 1036) (i32.shr_u (i32.add (local.get $count) (i32.const 7)) (i32.const 3)))
    (i32.const 1024)";
/// Leaves every record as it is.
pub const KEEPS: &str = "(i32.const 1024)";

/// Does `then` where the bytes of a batch contain `word`, of four bytes; else leaves every record as it is.
pub fn where_it_says(word: &str, then: &str) -> String {
    let word = u32::from_le_bytes(word.as_bytes().try_into().expect("a word has four bytes"));
    format!(
        "(local $at i32) (local $end i32) (local.set $at (local.get $ptr))
        (i32.store8 (i32.const 1028) (i32.const 0))
        (local.set $end (i32.sub (i32.add (local.get $ptr) (local.get $len)) (i32.const 4)))
        (block $none (loop $next (br_if $none (i32.gt_s (local.get $at) (local.get $end)))
          (if (i32.eq (i32.load (local.get $at)) (i32.const {word})) (then {then}))
          (local.set $at (i32.add (local.get $at) (i32.const 1))) (br $next)))
        (i32.const 1024)",
        word = word as i32
    )
}

/// Says that the first of its records has become this one, and the others are gone.
///
/// # Panics
/// Where the record has more than 60,000 bytes.
pub fn answers(record: &[u8]) -> Bytes {
    assert!(record.len() <= 60_000, "there is no room for more");
    let bytes: String = record.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let process = format!(
        "(i32.store (i32.const 4096) (i32.const 1))
        (call $rewrite (i32.const 4096) (local.get $count) (i32.const 8192) (i32.const {}))",
        record.len()
    );
    // The counts behind the first one are zero as long as a batch has fewer than a thousand records.
    Parts {
        items: &format!(r#"(data (i32.const 8192) "{bytes}")"#),
        process: &process,
        ..Parts::default()
    }
    .module()
}

/// What a module is made of; by default it leaves every record as it is.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What it imports.
    pub imports: &'a str,
    /// Functions, tables, data, and a start function where it has one.
    pub items: &'a str,
    /// The body of `configure`.
    pub configure: &'a str,
    /// The body of `process`.
    pub process: &'a str,
    /// The version of the contract.
    pub contract: &'a str,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Parts {
            imports: "",
            items: "",
            configure: KEEPS,
            process: KEEPS,
            contract: "1.0.0",
        }
    }
}

impl Parts<'_> {
    /// The component.
    ///
    /// # Panics
    /// Where the parts are no WebAssembly.
    pub fn module(&self) -> Bytes {
        componentize(&self.with_world())
            .expect("a module of this shape makes a component")
            .into()
    }

    fn with_world(&self) -> Vec<u8> {
        with_world(self.core(), self.contract)
    }

    fn core(&self) -> Vec<u8> {
        let Parts {
            imports,
            items,
            configure,
            process,
            contract,
        } = self;
        let text = format!(
            r#"(module
  {imports}
  (memory (export "memory") 64)
  (data (i32.const 2048) "\b8\0b\00\00\04\00\00\00")
  (data (i32.const 3000) "test")
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func $rewrite (param $counts i32) (param $n i32) (param $ptr i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1028) (i32.const 2))
    (i32.store (i32.const 1032) (local.get $counts)) (i32.store (i32.const 1036) (local.get $n))
    (i32.store (i32.const 1040) (local.get $ptr)) (i32.store (i32.const 1044) (local.get $len))
    (i32.const 1024))
  (func (export "millstream:module/transform@{contract}#describe") (result i32) (i32.const 2048))
  (func (export "millstream:module/transform@{contract}#configure")
    (param i32 i32 i32 i32 i32) (result i32) {configure})
  {items}
  (func (export "millstream:module/transform@{contract}#process")
    (param $partition i32) (param $some i32) (param $first i64) (param $append i64) (param $base i64)
    (param $count i32) (param $ptr i32) (param $len i32) (result i32)
    {process})
  (func (export "cabi_post_millstream:module/transform@{contract}#process") (param i32)
    (global.set $heap (i32.const 65536))))"#
        );
        wat::parse_str(text).expect("the body is WebAssembly")
    }
}

/// A component whose `process` is `body`.
///
/// # Panics
/// Where the body is no WebAssembly.
pub fn module(body: &str) -> Bytes {
    let parts = Parts {
        process: body,
        ..Parts::default()
    };
    parts.module()
}

/// Rewrites every record of a batch of up to ten thousand: each `#` in it becomes `stamp`.
pub fn stamps(stamp: char) -> Bytes {
    module(&format!(
        "(local $i i32)
        (block $end (loop $counts (br_if $end (i32.ge_u (local.get $i) (local.get $count)))
          (i32.store (i32.add (i32.const 4096) (i32.shl (local.get $i) (i32.const 2))) (i32.const 1))
          (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $counts)))
        (local.set $i (local.get $ptr))
        (block $done (loop $bytes
          (br_if $done (i32.ge_u (local.get $i) (i32.add (local.get $ptr) (local.get $len))))
          (if (i32.eq (i32.load8_u (local.get $i)) (i32.const 35))
            (then (i32.store8 (local.get $i) (i32.const {}))))
          (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $bytes)))
        (call $rewrite (i32.const 4096) (local.get $count) (local.get $ptr) (local.get $len))",
        stamp as u32
    ))
}

/// The same as the core module that a compiler would put out.
///
/// # Panics
/// Where the body is no WebAssembly.
pub fn core_module(body: &str) -> Bytes {
    let parts = Parts {
        process: body,
        ..Parts::default()
    };
    parts.with_world().into()
}

/// A component of no world at all.
pub fn empty_component() -> Bytes {
    wat::parse_str("(component)").expect("it is a component").into()
}

/// A component that wants something of the operating system.
pub fn component_with_import(name: &str) -> Bytes {
    component_that_imports(name, "f")
}

/// A component that wants a function of an interface.
pub fn component_that_imports(interface: &str, function: &str) -> Bytes {
    let text = format!(r#"(component (import "{interface}" (instance (export "{function}" (func)))))"#);
    wat::parse_str(text).expect("it is a component").into()
}

/// Adds the section that names the world.
fn with_world(mut core: Vec<u8>, contract: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let contract = MODULE_WIT.replace("@1.0.0", &format!("@{contract}"));
    let package = resolve.push_str("module.wit", &contract).expect("the contract is WIT");
    let world = resolve
        .select_world(&[package], Some("module"))
        .expect("the contract has a world of this name");
    wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)
        .expect("a core module takes a section");
    core
}
