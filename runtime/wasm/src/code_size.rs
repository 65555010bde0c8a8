//! How much there is to compile in a component. Compiling takes seconds a megabyte, so this is bounded before it
//! begins.
//!
//! ```text
//! component   preamble 8 B, section*     section   id u8, length leb128 u32, content
//!             section 1: a core module, whole; section 4: a component, whole
//! core        preamble 8 B, section*     section 10, code: count leb128, (length leb128, body)*
//! ```
//! Source: the binary formats of WebAssembly and of its component model.

use crate::ModuleError;
use crate::limits::{CODE_BYTES_MAX, FUNCTION_BYTES_MAX};

const PREAMBLE_BYTES: usize = 8;
const CORE_MODULE_SECTION: u8 = 1;
const COMPONENT_SECTION: u8 = 4;
const CODE_SECTION: u8 = 10;

/// Refuses a component that would take too long to compile. What is malformed is left for the compiler to refuse.
pub fn check(component: &[u8]) -> Result<(), ModuleError> {
    let (mut code, mut function) = (0, 0);
    let mut components = vec![component];
    while let Some(component) = components.pop() {
        for (id, content) in sections(component) {
            match id {
                COMPONENT_SECTION => components.push(content),
                CORE_MODULE_SECTION => {
                    for (_, content) in sections(content).filter(|(id, _)| *id == CODE_SECTION) {
                        code += content.len();
                        function = function.max(longest_function(content));
                    }
                }
                _ => {}
            }
        }
    }
    bounded("code", code, CODE_BYTES_MAX)?;
    bounded("code in one function", function, FUNCTION_BYTES_MAX)
}

fn bounded(what: &'static str, bytes: usize, limit: usize) -> Result<(), ModuleError> {
    if bytes > limit {
        return Err(ModuleError::TooMuchCode { what, bytes, limit });
    }
    Ok(())
}

/// The sections of a module or component, up to the first that is malformed.
fn sections(binary: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = binary.get(PREAMBLE_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&id, after) = rest.split_first()?;
        let (content, after) = framed(after)?;
        rest = after;
        Some((id, content))
    })
}

fn longest_function(code_section: &[u8]) -> usize {
    let Some((_, mut rest)) = leb128(code_section) else {
        return 0;
    };
    let bodies = std::iter::from_fn(|| {
        let (body, after) = framed(rest)?;
        rest = after;
        Some(body.len())
    });
    bodies.max().unwrap_or(0)
}

/// What a length in front says, and what follows it.
fn framed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = leb128(bytes)?;
    rest.split_at_checked(length as usize)
}

fn leb128(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u32;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(body: &str) -> Vec<u8> {
        wat::parse_str(format!("(component (component (core module (func) (func {body}))))")).unwrap()
    }

    #[test]
    fn code_is_counted_in_nested_components() {
        let body = "nop ".repeat(FUNCTION_BYTES_MAX);
        let too_long = component(&body);
        assert!(matches!(
            check(&too_long),
            Err(ModuleError::TooMuchCode { what: "code in one function", bytes, .. }) if bytes > FUNCTION_BYTES_MAX
        ));
        assert_eq!(check(&component(&body[..body.len() / 2])), Ok(()));
    }

    #[test]
    fn what_is_malformed_is_left_to_the_compiler() {
        let component = component("nop");
        for end in 0..component.len() {
            assert_eq!(check(&component[..end]), Ok(()));
        }
        assert_eq!(check(&[0xff; 100]), Ok(()));
    }
}
