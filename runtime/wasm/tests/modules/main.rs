//! Modules that behave and modules that do not, written in WebAssembly text.

mod answering;
mod behaving;
mod caching;
mod compiling;
mod deploying;
mod isolating;
mod misbehaving;
mod running;
mod support;
