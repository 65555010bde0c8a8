//! What takes the place of what is redacted.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// How something is made unreadable.
#[derive(Clone, Debug)]
pub enum How {
    /// This text takes its place.
    Mask(String),
    /// The hash of salt and text takes its place: the same text gives the same hash, so that records still join.
    Hash {
        /// A digest that has read the salt.
        salted: Sha256,
    },
    /// It goes.
    Drop,
}

impl How {
    /// Hashes with a salt.
    pub fn hash(salt: &str) -> Self {
        let salted = Sha256::new_with_prefix(salt);
        How::Hash { salted }
    }

    /// The text that takes the place of another one; `None` where it goes.
    pub fn redacted(&self, text: &[u8]) -> Option<String> {
        match self {
            How::Mask(with) => Some(with.clone()),
            How::Hash { salted } => {
                let digest = salted.clone().chain_update(text).finalize();
                let mut hex = String::with_capacity(2 * digest.len());
                for byte in digest {
                    write!(hex, "{byte:02x}").expect("writing to a string does not fail");
                }
                Some(hex)
            }
            How::Drop => None,
        }
    }
}
