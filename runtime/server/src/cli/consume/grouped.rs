//! `millstream consume --group`: reading as a member of a group. What is printed is committed, nothing else.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter},
    process::ExitCode,
    time::Duration,
};

use millstream_client::{Admin, Chunk, Connection, GroupConsumer, GroupConsumerSettings, GroupSettings, Start};
use tokio::{task, time::timeout};

use super::{ConsumeArgs, OUT_BYTES, Printer, settings, stopped};
use crate::cli::{EXIT_INTERRUPTED, output::written};

/// How often what is printed is committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at whether everything is read, while nothing comes.
const LOOK: Duration = Duration::from_millis(200);

/// One member that prints what it reads.
struct Reading {
    consumer: GroupConsumer,
    admin: Admin,
    topic: String,
    group: String,
    /// None while a chunk is printed: nobody knows then how much of it is.
    printer: Option<Printer<BufWriter<io::Stdout>>>,
}

/// Reads and prints, then leaves the group.
pub(super) async fn run(args: &ConsumeArgs, group: &str, connection: &Connection) -> anyhow::Result<ExitCode> {
    if matches!(args.from.0, Start::Offset(_)) {
        anyhow::bail!(
            "an offset belongs to one partition: `millstream group reset {group} --to OFFSET` takes one for a partition"
        );
    }
    let admin = Admin::new(connection);
    let mut ends = BTreeMap::new();
    for partition in 0..admin.topic(&args.topic).await?.partitions {
        let end = admin.offsets(&args.topic, partition, None).await?.high_watermark;
        ends.insert(partition, end);
    }
    let settings = GroupConsumerSettings {
        group: GroupSettings {
            client_id: format!("millstream consume {}", std::process::id()),
            ..GroupSettings::default()
        },
        consumer: settings(args),
        start: args.from.0,
        auto_commit: Some(COMMIT_INTERVAL),
    };
    let mut reading = Reading {
        consumer: GroupConsumer::join(connection, group, &[&args.topic], settings).await?,
        admin,
        topic: args.topic.clone(),
        group: group.to_owned(),
        printer: Some(Printer {
            topic: args.topic.clone(),
            format: args.format,
            left: args.max,
            out: BufWriter::with_capacity(OUT_BYTES, io::stdout()),
        }),
    };
    let ends = (!args.follow).then_some(ends);
    let read = tokio::select! {
        read = reading.read(ends.as_ref()) => read.map(|()| ExitCode::SUCCESS),
        signal = tokio::signal::ctrl_c() => {
            signal?;
            Ok(if args.follow { ExitCode::SUCCESS } else { ExitCode::from(EXIT_INTERRUPTED) })
        }
    };
    let left = match reading.printer {
        Some(_) => reading.consumer.close().await,
        None => reading.consumer.leave().await,
    };
    let code = read?;
    left?;
    Ok(code)
}

impl Reading {
    /// Prints what comes: for ever, or until the ends are reached.
    async fn read(&mut self, ends: Option<&BTreeMap<u32, u64>>) -> anyhow::Result<()> {
        loop {
            let left = self.printer.as_ref().and_then(|printer| printer.left);
            if left == Some(0) || self.is_done(ends).await? {
                return Ok(());
            }
            let Ok(chunk) = timeout(LOOK, self.consumer.next_chunk()).await else {
                continue;
            };
            let mut chunk = chunk.map_err(stopped)?;
            if let Some(left) = left {
                self.cut(&mut chunk, left).await?;
            }
            self.print(chunk).await?;
        }
    }

    /// Leaves what is not wanted any more to whoever reads next.
    async fn cut(&mut self, chunk: &mut Chunk, left: u64) -> anyhow::Result<()> {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if let Some(first_unwanted) = chunk.records.get(left) {
            let start = Start::Offset(first_unwanted.offset);
            self.consumer.seek(&self.topic, chunk.partition, start).await?;
            chunk.records.truncate(left);
        }
        Ok(())
    }

    async fn print(&mut self, chunk: Chunk) -> anyhow::Result<()> {
        let Some(mut printer) = self.printer.take() else {
            return Ok(());
        };
        let printing = task::spawn_blocking(move || {
            printer.print(&chunk)?;
            io::Write::flush(&mut printer.out)?;
            Ok(printer)
        });
        self.printer = Some(written(printing.await?)?);
        Ok(())
    }

    /// Whether everything up to the ends was read, by this member or a former one, or is another one's to read.
    async fn is_done(&self, ends: Option<&BTreeMap<u32, u64>>) -> anyhow::Result<bool> {
        let Some(ends) = ends else { return Ok(false) };
        let reads_to = |partition: u32| self.consumer.consumer().position(&self.topic, partition);
        let read = |(partition, end): (&u32, &u64)| reads_to(*partition).map(|at| at.next_offset >= *end);
        let read: Vec<Option<bool>> = ends.iter().map(read).collect();
        if read.contains(&Some(false)) {
            return Ok(false);
        }
        if !read.contains(&None) {
            return Ok(true);
        }
        let (group, own) = (self.admin.group(&self.group).await?, self.consumer.member().id());
        let others = group.partitions.iter().filter(|at| at.topic == self.topic);
        let others = others.filter(|at| reads_to(at.partition).is_none());
        let mut done = others.map(|at| {
            let is_others = at.member_id.as_ref().is_some_and(|member| *member != own);
            is_others || at.committed_offset.unwrap_or(at.log_start_offset) >= *ends.get(&at.partition).unwrap_or(&0)
        });
        Ok(done.all(|done| done))
    }
}
