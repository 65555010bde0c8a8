//! Time that stands still until it is driven on, and ids that never repeat.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use millstream_broker::Clock;
use object_store::ObjectMeta;

/// The clock of every agent of a world, and of its object store.
#[derive(Debug)]
pub struct DrivenClock {
    now_ms: AtomicI64,
    ids: AtomicU64,
    put_at_ms: Mutex<HashMap<String, i64>>,
}

impl Default for DrivenClock {
    fn default() -> DrivenClock {
        DrivenClock {
            now_ms: AtomicI64::new(1_700_000_000_000),
            ids: AtomicU64::new(1),
            put_at_ms: Mutex::default(),
        }
    }
}

impl DrivenClock {
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).expect("tests drive it by days at most");
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// An object was put now.
    pub fn note_put(&self, key: &str) {
        let mut put_at_ms = self.put_at_ms.lock().expect("no holder of the lock panics");
        put_at_ms.insert(key.to_owned(), self.now_ms());
    }

    /// Gives an object of a listing the age it has by this clock.
    pub fn age(&self, meta: &mut ObjectMeta) {
        let put_at_ms = self.put_at_ms.lock().expect("no holder of the lock panics");
        let Some(put_at_ms) = put_at_ms.get(meta.location.as_ref()) else {
            return;
        };
        let later_ms = meta.last_modified.timestamp_millis() - put_at_ms;
        let by = Duration::from_millis(later_ms.unsigned_abs());
        if later_ms > 0 {
            meta.last_modified -= by;
        } else {
            meta.last_modified += by;
        }
    }
}

impl Clock for DrivenClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn random_id(&self) -> u128 {
        let id = self.ids.fetch_add(1, Ordering::SeqCst);
        // Far apart in every bit, as random ones are, so that no order or prefix of theirs is relied on.
        (u128::from(id) | u128::from(!id) << 64).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }
}
