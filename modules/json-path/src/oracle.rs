//! The walk as `serde_json` would do it: what the tests hold the real one against.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::paths::{Paths, Reached, Set};
use crate::walk::Found;

/// As [`crate::find`], but for the paths of what is found.
pub(crate) fn find<'a>(
    document: &'a [u8],
    paths: &Paths,
    mut visit: impl FnMut(Found<'a>),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let mut report = |raw: &'a RawValue| {
        let json = raw.get();
        let start = json.as_ptr() as usize - document.as_ptr() as usize;
        visit(Found {
            json,
            range: start..start + json.len(),
            paths: 0,
        });
    };
    let reached = paths.start();
    Value {
        paths,
        reached,
        visit: &mut report,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Reads one value.
struct Value<'p, F> {
    paths: &'p Paths,
    reached: Reached,
    visit: &'p mut F,
}

impl<'de, F: FnMut(&'de RawValue)> DeserializeSeed<'de> for Value<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.reached.found != 0 {
            let raw = serde::Deserialize::deserialize(deserializer)?;
            (self.visit)(raw);
            Ok(())
        } else if self.reached.next == 0 {
            deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Value<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self {
            paths,
            reached: Reached { next: set, .. },
            visit,
        } = self;
        while let Some(reached) = map.next_key_seed(Name { paths, set })? {
            map.next_value_seed(Value {
                paths,
                reached,
                visit: &mut *visit,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self {
            paths,
            reached: Reached { next: set, .. },
            visit,
        } = self;
        let mut index = 0;
        loop {
            let reached = paths.element(set, index);
            if seq
                .next_element_seed(Value {
                    paths,
                    reached,
                    visit: &mut *visit,
                })?
                .is_none()
            {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads the name of an object's member and says where it leads.
struct Name<'p> {
    paths: &'p Paths,
    set: Set,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Reached;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Reached, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Reached;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Reached, E> {
        Ok(self
            .paths
            .member(self.set, name.as_bytes(), crate::block::head(name.as_bytes())))
    }
}
