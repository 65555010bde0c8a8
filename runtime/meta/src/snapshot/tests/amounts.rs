//! Many rows: they stream through bounded memory.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::BufReader;

use super::*;
use crate::database::sql;

const SEGMENTS: u64 = 120_000;
/// What an export or an import may hold at once, whatever the number of rows. The lines together are ten times as much.
const HELD_BYTES_MAX: u64 = 4 << 20;

async fn with_segments(world: &World) {
    fill(&world.metadata).await;
    let segments = sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2) \
         INSERT INTO segments SELECT $1, 0, i * 10, i * 10 + 10, 1, 'many/seg_' || i, NULL, 10, 1000, 100, i, i, i FROM n",
    )
    .on_postgres(
        "INSERT INTO segments SELECT $1, 0, i * 10, i * 10 + 10, 1, 'many/seg_' || i, NULL, 10, 1000, 100, i, i, i \
         FROM generate_series(1, $2) AS n (i)",
    );
    let segments = segments.bind(id(3)).bind(SEGMENTS as i64);
    world.metadata.database.write(segments).await.unwrap();
}

/// What `run` held at once at most, in this thread.
fn held<T>(runtime: &tokio::runtime::Runtime, run: impl Future<Output = T>) -> (T, u64) {
    let mut outcome = None;
    let counted = allocation_counter::measure(|| outcome = Some(runtime.block_on(run)));
    (outcome.expect("it has run"), counted.bytes_max)
}

fn through_a_file(worlds: impl Future<Output = (World, World)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap();
    let (from, to) = runtime.block_on(worlds);
    runtime.block_on(with_segments(&from));
    let file = tempfile::NamedTempFile::new().unwrap();

    let exported_rows = AtomicU64::new(0);
    let count = |rows: u64| {
        exported_rows.fetch_add(rows, Ordering::Relaxed);
    };
    let (report, held_bytes) = held(&runtime, async {
        let mut out = tokio::fs::File::create(file.path()).await.unwrap();
        from.metadata.export(&mut out, NOW_MS, &count).await.unwrap()
    });
    assert!(held_bytes < HELD_BYTES_MAX, "the export held {held_bytes} bytes");
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    assert!(rows > SEGMENTS);
    assert_eq!(exported_rows.into_inner(), rows);
    assert!(file.as_file().metadata().unwrap().len() > 8 * HELD_BYTES_MAX);

    let (imported, held_bytes) = held(&runtime, async {
        let input = tokio::fs::File::open(file.path()).await.unwrap();
        let options = ImportOptions {
            database: id(2),
            running: false,
        };
        to.metadata
            .import(&mut BufReader::new(input), options, &|_| {})
            .await
            .unwrap()
    });
    assert_eq!(imported, report);
    // What SQLite is given is freed by a thread of its own, and so never counted as given back.
    if to.database.is_some() {
        assert!(held_bytes < HELD_BYTES_MAX, "the import held {held_bytes} bytes");
    }
    let again = runtime.block_on(exported(&to.metadata));
    let original = std::fs::read_to_string(file.path()).unwrap();
    assert!(body(&again) == body(&original), "rows differ");
}

#[test]
fn many_segments_stream_from_sqlite_to_postgres() {
    through_a_file(async { (sqlite().await, postgres().await) });
}

#[test]
fn many_segments_stream_from_postgres_to_sqlite() {
    through_a_file(async { (postgres().await, sqlite().await) });
}
