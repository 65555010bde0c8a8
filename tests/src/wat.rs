//! Small modules out of WebAssembly text, for what no guest SDK would let an author do.
//!
//! Their memory: at 1024 the answer of every call (all zero: ok, unchanged, nothing rejected), at 2048 the info with the
//! name at 3000, from 4096 on room for what a body likes, from 64 KiB on what the host hands over.

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
/// Leaves every record as it is.
pub const KEEPS: &str = "(i32.const 1024)";

/// A component whose `process` is `body`.
///
/// # Panics
/// Where the body is no WebAssembly.
pub fn module(body: &str) -> Bytes {
    componentize(&with_world(core(body)))
        .expect("a module of this shape makes a component")
        .into()
}

/// The same as the core module that a compiler would put out.
///
/// # Panics
/// Where the body is no WebAssembly.
pub fn core_module(body: &str) -> Bytes {
    with_world(core(body)).into()
}

/// A component of no world at all.
pub fn empty_component() -> Bytes {
    wat::parse_str("(component)").expect("it is a component").into()
}

/// A component that wants something of the operating system.
pub fn component_with_import(name: &str) -> Bytes {
    let text = format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
    wat::parse_str(text).expect("it is a component").into()
}

fn core(process: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
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
  (func (export "millstream:module/transform@1.0.0#describe") (result i32) (i32.const 2048))
  (func (export "millstream:module/transform@1.0.0#configure")
    (param i32 i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "millstream:module/transform@1.0.0#process")
    (param $partition i32) (param $some i32) (param $first i64) (param $append i64) (param $base i64)
    (param $count i32) (param $ptr i32) (param $len i32) (result i32)
    {process})
  (func (export "cabi_post_millstream:module/transform@1.0.0#process") (param i32)
    (global.set $heap (i32.const 65536))))"#
    );
    wat::parse_str(text).expect("the body is WebAssembly")
}

/// Adds the section that names the world.
fn with_world(mut core: Vec<u8>) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("module.wit", MODULE_WIT).expect("the contract is WIT");
    let world = resolve
        .select_world(&[package], Some("module"))
        .expect("the contract has a world of this name");
    wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)
        .expect("a core module takes a section");
    core
}
