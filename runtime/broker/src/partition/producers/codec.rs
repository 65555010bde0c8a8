//! How the metadata keep what a partition knows of its producers: the bytes of a segment's notes, as Base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use millstream_log::segment::ProducerCheckpoint;

/// As text.
pub(crate) fn encode(checkpoint: &ProducerCheckpoint) -> String {
    STANDARD.encode(checkpoint.encode())
}

/// Back from text; else what is wrong with it.
pub(crate) fn decode(text: &str) -> Result<ProducerCheckpoint, String> {
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    ProducerCheckpoint::decode(&bytes).map_err(str::to_owned)
}
