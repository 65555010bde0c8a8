//! Reading what a log left behind, up to the first thing that was never known to be durable.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::scan::{LogFile, NextGroup, Remains};
use crate::error::{LogError, Result};
use crate::wal::frame::{Frame, split_frame};
use crate::wal::group::{FileHeader, GROUP_HEADER_BYTES, GroupHeader, HeaderFault};

/// What a replay found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// Groups that were whole.
    pub groups: u64,
    /// Frames in them.
    pub frames: u64,
    /// Log position behind the last whole group.
    pub durable_end: u64,
    /// Bytes of groups behind it that were left out: torn by a crash, and never known to be durable.
    pub cut_bytes: u64,
}

/// Gives every frame of the log in `dir` to `visit`, in the order they were written. Only reads; a log that is still
/// being written must not be replayed. A group is visited whole or not at all.
///
/// Errors: [`LogError::WalDamaged`] when frames that were durable are damaged or missing, [`LogError::WalOther`],
/// [`LogError::WalNotUnderstood`], [`LogError::Io`], and whatever `visit` gives, which stops the replay.
pub fn replay(dir: &Path, wal_id: Uuid, mut visit: impl FnMut(Frame) -> Result<()>) -> Result<ReplaySummary> {
    let files = wal_files(dir)?;
    let mut walk = Walk {
        wal_id,
        next: None,
        summary: ReplaySummary::default(),
    };
    let mut payload = Vec::new();
    for (index, (number, path)) in files.iter().enumerate() {
        let later = &files[index + 1..];
        let mut file = LogFile::open(path)?;
        if let Some(reason) = walk.enter(&mut file, *number)? {
            return walk.cut(file, 0, later, reason);
        }
        loop {
            match file.next_group(&mut payload)? {
                NextGroup::Whole(header) => match walk.misfit(&header) {
                    None => walk.visit(&file, &header, &payload, &mut visit)?,
                    Some(reason) => return walk.cut_at_group(file, later, reason),
                },
                NextGroup::Damaged(reason) => return walk.cut_at_group(file, later, reason),
                NextGroup::NotUnderstood(reason) => return Err(not_understood(&file, file.position(), reason)),
                NextGroup::End if walk.goes_on_in(later.first())? => break,
                NextGroup::End => return walk.cut_at_group(file, later, "a group is missing".into()),
            }
        }
    }
    Ok(walk.summary)
}

/// The files of the log in `dir` with the numbers in their names, in order.
pub(in crate::wal) fn wal_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |error| LogError::io(dir, "list the directory", 0, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(number) = number_of(&path) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The number in a file's name, which is written with exactly 20 digits.
fn number_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".wal")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Where a replay stands.
struct Walk {
    wal_id: Uuid,
    /// The number the next group must have; none before the first file was entered.
    next: Option<u64>,
    summary: ReplaySummary,
}

impl Walk {
    /// Checks the head of a file. Gives what is wrong with it when the log cannot go on in it.
    fn enter(&mut self, file: &mut LogFile, number: u64) -> Result<Option<String>> {
        let header = match file.header()? {
            Ok(header) => header,
            Err(HeaderFault::Damaged(reason)) => return Ok(Some(reason)),
            Err(HeaderFault::NotUnderstood(reason)) => return Err(not_understood(file, 0, reason)),
        };
        if header.wal_id != self.wal_id {
            return Err(LogError::WalOther {
                path: file.path().into(),
                found: header.wal_id,
                expected: self.wal_id,
            });
        }
        if header.first_group != number {
            return Ok(Some(format!(
                "the file starts with group {}, its name says {number}",
                header.first_group
            )));
        }
        if self.next.is_none() {
            self.next = Some(header.first_group);
            self.summary.durable_end = header.position;
        }
        Ok((!self.fits(&header)).then(|| format!("group {} is missing before the file", self.next_group())))
    }

    fn next_group(&self) -> u64 {
        self.next.unwrap_or(0)
    }

    fn fits(&self, header: &FileHeader) -> bool {
        header.first_group == self.next_group() && header.position == self.summary.durable_end
    }

    /// Whether a file that ends here is followed by the one that starts here.
    fn goes_on_in(&self, next: Option<&(u64, PathBuf)>) -> Result<bool> {
        let Some((_, path)) = next else { return Ok(false) };
        Ok(LogFile::open(path)?
            .header()?
            .is_ok_and(|header| header.wal_id == self.wal_id && self.fits(&header)))
    }

    /// Why a whole group is not the next one of this log.
    fn misfit(&self, header: &GroupHeader) -> Option<String> {
        let fits = header.wal_id == self.wal_id
            && header.number == self.next_group()
            && header.position == self.summary.durable_end;
        (!fits).then(|| {
            format!(
                "found group {} at log position {} of log {}, expected group {}",
                header.number,
                header.position,
                header.wal_id,
                self.next_group()
            )
        })
    }

    fn visit(
        &mut self,
        file: &LogFile,
        header: &GroupHeader,
        mut payload: &[u8],
        visit: &mut impl FnMut(Frame) -> Result<()>,
    ) -> Result<()> {
        let start = file.position() - header.payload_len as u64 - GROUP_HEADER_BYTES as u64;
        for _ in 0..header.frame_count {
            // The checksum was right, so this is what was written: leaving it out would lose it.
            let frame = split_frame(&mut payload)
                .and_then(Frame::decode)
                .map_err(|reason| not_understood(file, start, reason))?;
            visit(frame)?;
            self.summary.frames += 1;
        }
        self.summary.groups += 1;
        self.summary.durable_end = header.end_position();
        self.next = Some(self.next_group().saturating_add(1));
        Ok(())
    }

    fn cut_at_group(self, file: LogFile, later: &[(u64, PathBuf)], reason: String) -> Result<ReplaySummary> {
        let position = file.position();
        self.cut(file, position, later, reason)
    }

    /// Ends the log here, unless something later knows that it went on durably.
    fn cut(mut self, file: LogFile, position: u64, later: &[(u64, PathBuf)], reason: String) -> Result<ReplaySummary> {
        let mut remains = Remains::default();
        remains.add(&file, position, self.wal_id)?;
        for (_, path) in later {
            remains.add(&LogFile::open(path)?, 0, self.wal_id)?;
        }
        // A file's header is durable before its first group is written. So where the header is damaged and a group is
        // there, it is no torn creation, whatever the group knew.
        let below_header = position == 0 && remains.groups > 0;
        if remains.durable_end > self.summary.durable_end || below_header {
            return Err(LogError::WalDamaged {
                path: file.path().into(),
                position,
                log_position: self.summary.durable_end,
                durable_end: remains.durable_end,
                reason,
            });
        }
        self.summary.cut_bytes = remains.bytes;
        Ok(self.summary)
    }
}

fn not_understood(file: &LogFile, position: u64, reason: String) -> LogError {
    LogError::WalNotUnderstood {
        path: file.path().into(),
        position,
        reason,
    }
}
