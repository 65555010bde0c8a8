//! Modules that behave and modules that do not, written in WebAssembly text.

mod behaving;
mod compiling;
mod misbehaving;
mod support;
