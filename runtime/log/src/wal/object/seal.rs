//! The object that ends a log: it stands where the next group would. The layout is drawn in the parent of this room.

use uuid::Uuid;

use crate::wal::group::{HeaderFault, check, with_crc};
use crate::wire::Fields;

/// Length of a seal; a group is longer.
pub(super) const SEAL_BYTES: usize = 64;
const SEAL_MAGIC: [u8; 4] = *b"MSWS";

/// Who has ended which log, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) wal_id: Uuid,
    /// The number of the group in whose place it stands.
    pub(super) number: u64,
    /// The incarnation that took over.
    pub(super) by: Uuid,
    /// Every number from the trim floor up to this one was there when the seal was put.
    pub(super) present_end: u64,
}

impl Seal {
    pub(super) fn encode(&self) -> [u8; SEAL_BYTES] {
        let mut bytes = [0; SEAL_BYTES];
        bytes[..4].copy_from_slice(&SEAL_MAGIC);
        bytes[4..6].copy_from_slice(&1u16.to_be_bytes());
        bytes[8..24].copy_from_slice(self.wal_id.as_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_be_bytes());
        bytes[32..48].copy_from_slice(self.by.as_bytes());
        bytes[48..56].copy_from_slice(&self.present_end.to_be_bytes());
        with_crc(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Seal, HeaderFault> {
        let damaged = |reason: &str| HeaderFault::Damaged(reason.to_string());
        let bytes: &[u8; SEAL_BYTES] = bytes.try_into().map_err(|_| damaged("no seal has this length"))?;
        if bytes[..4] != SEAL_MAGIC {
            return Err(damaged("the seal has no magic"));
        }
        check(bytes, "seal", &bytes[4..6], [&bytes[6..8], &bytes[56..60]])?;
        let decoded = || {
            let mut fields = Fields::new(&bytes[8..]);
            Some(Seal {
                wal_id: fields.uuid()?,
                number: fields.u64()?,
                by: fields.uuid()?,
                present_end: fields.u64()?,
            })
        };
        Ok(decoded().expect("64 bytes hold every field"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal {
        wal_id: Uuid::from_u128(7),
        number: 12,
        by: Uuid::from_u128(9),
        present_end: 10,
    };

    #[test]
    fn a_seal_round_trips_and_every_damaged_byte_is_found() {
        let bytes = SEAL.encode();
        assert_eq!(Seal::decode(&bytes), Ok(SEAL));
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert!(
                matches!(Seal::decode(&damaged), Err(HeaderFault::Damaged(_))),
                "byte {at}"
            );
        }
        assert!(Seal::decode(&bytes[..63]).is_err());
    }
}
