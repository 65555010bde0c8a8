//! The watched folder: `NAME.wasm` in it is deployed as module NAME.
//!
//! A file counts once it is complete: its writer closed it, or it was moved or linked here under its name. Where the system does not
//! tell (at the start, where the folder was made anew, where events were lost, and outside Linux) it counts once its size and
//! time are the same in two looks. What was in force once under the name is not deployed again by a start; the same bytes
//! change nothing, and neither does the deletion of a file. Whatever is wrong with a file is said in the log and in
//! `module logs NAME`; nothing else comes of it.
//!
//! | file | owns |
//! |---|---|
//! | `events` | what the system tells about a folder, and which file it is about |
//! | `folder` | which files are there, and which of them are complete |
//! | `file` | one complete file: its name, its bytes, its deployment |

mod events;
mod file;
mod folder;

use std::{path::PathBuf, sync::Arc, time::Duration};

use millstream_broker::Broker;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use events::{Events, Told};
use file::Deployer;
use folder::Folder;

/// Between two looks at the folder.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches until `stopped` turns true. A folder that is not there is waited for, again and again.
pub async fn run(dir: PathBuf, broker: Arc<Broker>, stopped: watch::Receiver<bool>) {
    tracing::info!(folder = %dir.display(), "modules are deployed from this folder");
    follow(dir, Deployer::new(broker), stopped, LOOK_INTERVAL).await;
}

async fn follow(dir: PathBuf, mut deployer: Deployer, mut stopped: watch::Receiver<bool>, look_interval: Duration) {
    let mut folder = Folder::new(dir.clone());
    let mut events = Events::new(dir);
    let mut looks = interval(look_interval);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let complete = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            told = events.next() => match told {
                Told::Complete(name) => {
                    deployer.forget_refusal(&name);
                    vec![(name, false)]
                }
                Told::Touched(name) => {
                    folder.settle(name, true);
                    Vec::new()
                }
                Told::Lost => {
                    folder.look_at_all();
                    Vec::new()
                }
            },
            _ = looks.tick() => {
                if events.attach() {
                    folder.look_at_all();
                }
                folder.settled()
            }
        };
        for (name, is_found) in complete {
            let path = folder.path(&name);
            // What cannot be deployed now is looked at again, as what it was: its version may exist by now.
            if !deployer.take(&path, is_found).await {
                folder.settle(name, is_found);
            }
        }
    }
}
