//! The headers of files and groups. The layouts are drawn in the parent.

use uuid::Uuid;

use super::frame::check_frames;
use crate::wire::Fields;

/// Length of a file's header.
pub(super) const FILE_HEADER_BYTES: usize = 64;
/// Length of a group's header.
pub(super) const GROUP_HEADER_BYTES: usize = 64;
/// The most the frames of one group may take together; replay reads no group that claims more.
pub const GROUP_BYTES_MAX: usize = 128 << 20;
/// What a group starts with.
pub(super) const GROUP_MAGIC: [u8; 4] = *b"MSWG";

const FILE_MAGIC: [u8; 8] = *b"MILLSWAL";
const VERSION: u16 = 1;
/// Both headers end with the checksum of everything before it.
const CRC_AT: usize = 60;

/// Why a header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// It is not what was once written.
    Damaged(String),
    /// It is whole, but this build does not know what it means.
    NotUnderstood(String),
}

/// The head of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) wal_id: Uuid,
    pub(super) first_group: u64,
    pub(super) position: u64,
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[12..28].copy_from_slice(self.wal_id.as_bytes());
        bytes[28..36].copy_from_slice(&self.first_group.to_be_bytes());
        bytes[36..44].copy_from_slice(&self.position.to_be_bytes());
        with_crc(bytes)
    }

    pub(super) fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<FileHeader, HeaderFault> {
        if bytes[..8] != FILE_MAGIC {
            return Err(HeaderFault::Damaged("the file header has no magic".into()));
        }
        check(bytes, "file", &bytes[8..10], [&bytes[10..12], &bytes[44..CRC_AT]])?;
        let header = || {
            let mut fields = Fields::new(&bytes[12..]);
            Some(FileHeader {
                wal_id: fields.uuid()?,
                first_group: fields.u64()?,
                position: fields.u64()?,
            })
        };
        Ok(header().expect("64 bytes hold every field"))
    }
}

/// The head of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) wal_id: Uuid,
    pub(super) number: u64,
    pub(super) position: u64,
    pub(super) durable_end: u64,
    pub(super) payload_len: u32,
    pub(super) frame_count: u32,
}

impl GroupHeader {
    pub(super) fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[..4].copy_from_slice(&GROUP_MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..24].copy_from_slice(self.wal_id.as_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.position.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.durable_end.to_be_bytes());
        bytes[48..52].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[52..56].copy_from_slice(&self.frame_count.to_be_bytes());
        with_crc(bytes)
    }

    pub(super) fn decode(bytes: &[u8; GROUP_HEADER_BYTES]) -> Result<GroupHeader, HeaderFault> {
        if bytes[..4] != GROUP_MAGIC {
            return Err(HeaderFault::Damaged("a group header has no magic".into()));
        }
        check(bytes, "group", &bytes[4..6], [&bytes[6..8], &bytes[56..CRC_AT]])?;
        let header = || {
            let mut fields = Fields::new(&bytes[8..]);
            Some(GroupHeader {
                wal_id: fields.uuid()?,
                number: fields.u64()?,
                position: fields.u64()?,
                durable_end: fields.u64()?,
                payload_len: fields.u32()?,
                frame_count: fields.u32()?,
            })
        };
        Ok(header().expect("64 bytes hold every field"))
    }

    /// The log position behind the group.
    pub(super) fn end_position(&self) -> u64 {
        self.position
            .saturating_add(GROUP_HEADER_BYTES as u64 + u64::from(self.payload_len))
    }
}

/// Ends a header with its checksum.
pub(super) fn with_crc(mut bytes: [u8; 64]) -> [u8; 64] {
    let crc = crc32fast::hash(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Whether a header is what was once written, and one that this build understands.
pub(super) fn check(bytes: &[u8; 64], what: &str, version: &[u8], reserved: [&[u8]; 2]) -> Result<(), HeaderFault> {
    let expected = u32::from_be_bytes(bytes[CRC_AT..].try_into().expect("four bytes"));
    let found = crc32fast::hash(&bytes[..CRC_AT]);
    if found != expected {
        return Err(HeaderFault::Damaged(format!(
            "a {what} header's crc is {found:#x}, expected {expected:#x}"
        )));
    }
    let version = u16::from_be_bytes(version.try_into().expect("two bytes"));
    if version != VERSION {
        return Err(HeaderFault::NotUnderstood(format!(
            "{what}s of version {version} are not understood"
        )));
    }
    if reserved.concat().iter().any(|byte| *byte != 0) {
        return Err(HeaderFault::NotUnderstood(format!(
            "a {what} header's reserved fields are not 0"
        )));
    }
    Ok(())
}

/// Takes a group apart of which nothing follows: its header and its frames' bytes, every checksum of which is right.
pub(super) fn split_group(bytes: &[u8]) -> Result<(GroupHeader, &[u8]), HeaderFault> {
    let cut_short = || HeaderFault::Damaged("a group header is cut short".into());
    let (head, payload) = bytes.split_first_chunk().ok_or_else(cut_short)?;
    let header = GroupHeader::decode(head)?;
    if header.payload_len as usize != payload.len() {
        let (found, expected) = (payload.len(), header.payload_len);
        return Err(HeaderFault::Damaged(format!(
            "{found} bytes follow a group header, expected {expected}"
        )));
    }
    check_frames(header.frame_count, payload).map_err(HeaderFault::Damaged)?;
    Ok((header, payload))
}
