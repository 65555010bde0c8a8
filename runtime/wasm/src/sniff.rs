//! What kind of file it is, by its first eight bytes: `\0asm`, version (u16), layer (u16: 0 core module, 1 component).
//!
//! Source: the binary format of the WebAssembly component model, "Component Definitions".

use crate::ModuleError;
use crate::limits::COMPONENT_BYTES_MAX;

const CORE_PREAMBLE: &[u8; 8] = b"\0asm\x01\x00\x00\x00";
const COMPONENT_PREAMBLE: &[u8; 8] = b"\0asm\x0d\x00\x01\x00";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Core,
    Component,
}

/// Tells a component from a core module; anything else, and anything too large, is refused.
pub fn sniff(bytes: &[u8]) -> Result<Kind, ModuleError> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(ModuleError::TooLarge {
            bytes: bytes.len(),
            limit: COMPONENT_BYTES_MAX,
        });
    }
    match bytes.first_chunk::<8>() {
        Some(CORE_PREAMBLE) => Ok(Kind::Core),
        Some(COMPONENT_PREAMBLE) => Ok(Kind::Component),
        _ => Err(ModuleError::NotWasm),
    }
}
