//! Which names and counts a topic or module may have.

use crate::error::{BrokerError, Result};

/// As in Kafka.
const TOPIC_NAME_CHARS_MAX: usize = 249;
const MODULE_NAME_CHARS_MAX: usize = 100;
pub(crate) const PARTITIONS_MAX: u32 = 100_000;

/// Topic names become folders of the object store, so nothing that a path gives a meaning is allowed.
pub(crate) fn check_topic_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.chars().count() > TOPIC_NAME_CHARS_MAX {
        format!("it has {} characters", name.chars().count())
    } else if name == "." || name == ".." {
        "it is a path".to_owned()
    } else if let Some(bad) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c)))
    {
        format!("it contains {bad:?}")
    } else {
        return Ok(());
    };
    Err(BrokerError::InvalidName {
        what: "topic",
        name: shorten(name),
        reason,
        allowed: "1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-'",
    })
}

pub(crate) fn check_module_name(name: &str) -> Result<()> {
    let well_formed = name.len() <= MODULE_NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if well_formed {
        return Ok(());
    }
    Err(BrokerError::InvalidName {
        what: "module",
        name: shorten(name),
        reason: "it is not of that form".to_owned(),
        allowed: "1 to 100 characters of a-z, 0-9 and '-', beginning with a letter",
    })
}

pub(crate) fn check_partitions(partitions: u32) -> Result<()> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(());
    }
    Err(BrokerError::InvalidPartitions { partitions })
}

/// A message stays readable whatever was sent as a name.
fn shorten(name: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    if name.chars().count() <= SHOWN_CHARS {
        return name.to_owned();
    }
    name.chars().take(SHOWN_CHARS).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_too_long_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", "ü", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "access.log_2-x", &"x".repeat(249), "..."] {
            check_topic_name(good).unwrap();
        }
    }

    #[test]
    fn module_names_are_lower_case_words() {
        for bad in ["", "1a", "A", "a_b", "-a", &"x".repeat(101)] {
            assert!(check_module_name(bad).is_err(), "{bad:?} was accepted");
        }
        check_module_name("access-log2").unwrap();
    }

    #[test]
    fn a_topic_has_one_to_a_hundred_thousand_partitions() {
        assert!(check_partitions(0).is_err());
        assert!(check_partitions(100_001).is_err());
        check_partitions(1).unwrap();
        check_partitions(100_000).unwrap();
    }
}
