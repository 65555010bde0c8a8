//! The codecs of a batch, and compressing with them. `decompress` is the way back.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::str::FromStr;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::error::BatchError;

/// The level of zstd's own default: further up time grows faster than what is saved.
const ZSTD_LEVEL: i32 = 3;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One LZ4 frame.
    Lz4,
    /// One Zstandard frame.
    Zstd,
}

impl Compression {
    /// The codec's number in the attributes: 0, 3 or 4, as in Kafka.
    pub fn code(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The codec with this number, when it is one of those offered.
    pub fn from_code(code: u8) -> Option<Compression> {
        match code {
            0 => Some(Compression::None),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The name in configuration and tables.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// `records` as they travel with this codec.
    pub(crate) fn compress(self, records: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Compression::None => Cow::Borrowed(records),
            Compression::Lz4 => Cow::Owned(lz4_frame(records)),
            Compression::Zstd => Cow::Owned(
                zstd::bulk::compress(records, ZSTD_LEVEL).expect("zstd writes into a buffer of its own greatest size"),
            ),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = BatchError;

    fn from_str(name: &str) -> Result<Self, BatchError> {
        [Compression::None, Compression::Lz4, Compression::Zstd]
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| BatchError::UnknownCompression { name: name.to_owned() })
    }
}

/// One frame of independent 64 KiB blocks: all that Kafka's own clients read.
fn lz4_frame(records: &[u8]) -> Vec<u8> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(records).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_back_to_the_codec() {
        for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
            assert_eq!(codec.to_string().parse(), Ok(codec));
            assert_eq!(Compression::from_code(codec.code()), Some(codec));
        }
        let error = "gzip".parse::<Compression>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown compression \"gzip\": expected none, lz4 or zstd"
        );
    }
}
