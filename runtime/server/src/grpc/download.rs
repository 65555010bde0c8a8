//! Components on their way out: each is in memory as a whole, so few are at once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use millstream_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::status::exhausted;

/// Bytes of a component in one message.
const PIECE_BYTES: usize = 256 << 10;

/// Components in memory at once, of 64 MiB at most each.
const DOWNLOADS_MAX: usize = 4;

/// How long a download waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The turns of downloads. Clones share them.
#[derive(Clone)]
pub(super) struct Downloads {
    free: Arc<Semaphore>,
    patience: Duration,
}

/// One download; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Default for Downloads {
    fn default() -> Downloads {
        Downloads::new(PATIENCE)
    }
}

impl Downloads {
    fn new(patience: Duration) -> Downloads {
        Downloads {
            free: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            patience,
        }
    }

    /// Waits for a turn, but not for ever: others may never read theirs.
    pub(super) async fn turn(&self) -> Result<Turn, Status> {
        let permit = tokio::time::timeout(self.patience, self.free.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| {
            let message = format!("{DOWNLOADS_MAX} modules are being downloaded, which is the most at once: try again");
            exhausted("DOWNLOADS_FULL", &message)
        })?;
        Ok(Turn {
            _permit: permit.expect("it is never closed"),
        })
    }
}

/// A component in pieces, the first one with what describes it. The turn ends with the stream.
pub(super) fn pieces(
    turn: Turn,
    module: v1::ModuleVersion,
    component: Bytes,
) -> BoxStream<'static, Result<v1::DownloadModuleResponse, Status>> {
    let first = Some((turn, Some(module), component));
    let next = |left: Option<(Turn, Option<v1::ModuleVersion>, Bytes)>| async move {
        let (turn, module, mut component) = left?;
        let piece = component.split_to(component.len().min(PIECE_BYTES));
        let left = (!component.is_empty()).then_some((turn, None, component));
        Some((Ok(v1::DownloadModuleResponse { module, piece }), left))
    };
    stream::unfold(first, next).boxed()
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn component() -> Bytes {
        (0..PIECE_BYTES * 2 + 1).map(|n| n as u8).collect()
    }

    #[tokio::test]
    async fn a_component_comes_in_pieces_and_the_first_one_describes_it() {
        let turn = Downloads::default().turn().await.unwrap();
        let module = v1::ModuleVersion {
            name: "m".to_owned(),
            ..Default::default()
        };
        let pieces: Vec<_> = pieces(turn, module.clone(), component()).collect().await;
        let pieces: Vec<_> = pieces.into_iter().map(Result::unwrap).collect();
        let described: Vec<_> = pieces.iter().map(|piece| piece.module.as_ref()).collect();
        assert_eq!(described, [Some(&module), None, None]);
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.piece.to_vec()).collect();
        assert_eq!(joined, component());
    }

    #[tokio::test]
    async fn downloads_that_nobody_reads_keep_others_from_taking_memory_and_say_so() {
        let downloads = Downloads::new(Duration::ZERO);
        let mut held = Vec::new();
        for _ in 0..DOWNLOADS_MAX {
            let turn = downloads.turn().await.unwrap();
            let mut stream = pieces(turn, v1::ModuleVersion::default(), component());
            stream.next().await.unwrap().unwrap();
            held.push(stream);
        }
        let refused = downloads.turn().await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("try again"), "{}", refused.message());

        // One that is read to its end, and one that is given up, make room.
        let read: Vec<_> = held.pop().unwrap().collect().await;
        assert_eq!(read.len(), 2);
        let turn = downloads.turn().await.unwrap();
        held.pop();
        downloads.turn().await.unwrap();
        drop(turn);
    }

    #[tokio::test]
    async fn a_download_waits_for_its_turn() {
        let downloads = Downloads::default();
        let mut turns = Vec::new();
        for _ in 0..DOWNLOADS_MAX {
            turns.push(downloads.turn().await.unwrap());
        }
        let waiting = downloads.turn();
        let (waited, ()) = futures::join!(waiting, async { drop(turns.pop()) });
        waited.unwrap();
    }
}
