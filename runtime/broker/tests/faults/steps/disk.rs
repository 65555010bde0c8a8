//! Step 2 on a disk: what was handed to it last is there, or is not, or is there in part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millstream_broker::{Acks, WalKind};

use super::{check_after_crash, config, prepare, world};
use crate::control::{Fault, Point};
use crate::ledger::Books;
use crate::world::TOPIC;

/// Files by path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read(dir: &Path) -> Files {
    let mut files = Files::new();
    for folder in std::fs::read_dir(dir).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

/// Of what was written after `before` was read, leaves every byte below `keep`, counted over all files.
fn tear(dir: &Path, before: &Files, keep: usize) -> usize {
    let mut written = 0;
    for (path, after) in read(dir) {
        let old = before.get(&path).cloned().unwrap_or_else(|| vec![0; after.len()]);
        let torn: Vec<u8> = (0..after.len())
            .map(|at| {
                let was = old.get(at).copied().unwrap_or(0);
                if after[at] == was {
                    return was;
                }
                written += 1;
                if written > keep { was } else { after[at] }
            })
            .collect();
        std::fs::write(&path, torn).unwrap();
    }
    written
}

#[test]
fn a_torn_end_of_the_log_costs_no_acknowledged_record() {
    let mut keep = 0;
    loop {
        let (world, books) = (world(), Books::default());
        let agent = world.open_with_topic(WalKind::Disk, config());
        prepare(&agent, &books, &world);
        let before = read(&world.wal_dir());
        // It is written, but nobody is answered.
        agent.control.ask(Point::Commit, "", Fault::HoldAnswer, 1);
        let broker = agent.broker().clone();
        agent.run(async {
            tokio::select! {
                () = agent.control.wait_met(1) => {}
                _ = books.produce(&broker, TOPIC, 0, 10, Acks::Durable) => {}
            }
        });
        drop(broker);
        agent.crash();
        let written = tear(&world.wal_dir(), &before, keep);
        println!("{keep} of {written} bytes");
        check_after_crash(&world, &books, WalKind::Disk);
        if keep >= written {
            return;
        }
        keep += 1 + written / 12;
    }
}
