//! Which names and counts a topic or module may have.

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
};

/// As in Kafka.
const TOPIC_NAME_CHARS_MAX: usize = 249;
const MODULE_NAME_CHARS_MAX: usize = 100;
pub(crate) const PARTITIONS_MAX: u32 = 100_000;

/// Topic names become folders of the object store, so nothing that a path gives a meaning is allowed.
pub(crate) fn check_topic_name(name: &str) -> Result<()> {
    check_name("topic", name)
}

/// As those of topics.
pub(crate) fn check_group_name(name: &str) -> Result<()> {
    check_name("group", name)
}

pub(crate) fn check_producer_name(name: &str) -> Result<()> {
    check_name("producer", name)
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
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
        what,
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

/// How alike two names must be, from 0 to 1, for one to be offered in place of the other.
const LIKENESS_MIN: f64 = 0.8;

/// The known name that is most like one that is not known, if it is so alike that it may have been meant. What is longer than
/// any name is like none, and would take long to be compared.
pub(crate) fn nearest<S: AsRef<str>>(name: &str, known: impl IntoIterator<Item = S>) -> Option<S> {
    if name.len() > TOPIC_NAME_CHARS_MAX {
        return None;
    }
    let (likeness, nearest) = most_alike(name, known)?;
    (likeness >= LIKENESS_MIN).then_some(nearest)
}

/// What may have been meant by a module `NAME` or `NAME@VERSION` that there is not; `known` are the names and versions that
/// there are. Where only the version is unknown it is the newest one.
pub fn nearest_module<'a>(name: &str, known: impl Iterator<Item = (&'a str, u32)> + Clone) -> Option<String> {
    let (name, _) = name.split_once('@').unwrap_or((name, ""));
    let versions = known.clone().filter(|(known, _)| *known == name);
    match versions.map(|(_, version)| version).max() {
        Some(newest) => Some(format!("{name}@{newest}")),
        None => nearest(name, known.map(|(known, _)| known)).map(str::to_owned),
    }
}

/// The known name that is most like another one, and how alike they are, from 0 to 1.
pub fn most_alike<S: AsRef<str>>(name: &str, known: impl IntoIterator<Item = S>) -> Option<(f64, S)> {
    let known = known.into_iter();
    let alike = known.map(|known| (strsim::jaro_winkler(name, known.as_ref()), known));
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other))
}

impl Broker {
    /// The same error; of a topic or module that does not exist, with the nearest name that does, where one is near.
    pub async fn with_nearest_name(&self, error: BrokerError) -> BrokerError {
        let found = match &error {
            BrokerError::UnknownTopic { name } => {
                let topics = self.shared().metadata.topics().await;
                topics.map(|topics| nearest(name, topics.into_iter().map(|topic| topic.name)))
            }
            BrokerError::UnknownModule { name } => self.shared().metadata.modules().await.map(|modules| {
                let known = modules.iter().map(|module| (module.name.as_str(), module.version));
                nearest_module(name, known)
            }),
            _ => return error,
        };
        match found {
            Ok(Some(nearest)) => BrokerError::NearName {
                unknown: Box::new(error),
                nearest,
            },
            // What is wrong is known; a hint less is no harm.
            Ok(None) | Err(_) => error,
        }
    }
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
    fn only_a_name_that_may_have_been_meant_is_near() {
        let known = ["redact", "json-filter", "json-map"];
        assert_eq!(nearest("redcat", known), Some("redact"));
        assert_eq!(nearest("jsonmap", known), Some("json-map"));
        assert_eq!(nearest("absent", known), None);
        assert_eq!(nearest("redact", [""; 0]), None);
        let long = "x".repeat(250);
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(most_alike("json", known).unwrap().1, "json-map");
        let versions = [("redact", 1), ("redact", 2), ("split", 1)];
        let module = |name: &str| nearest_module(name, versions.into_iter());
        assert_eq!(module("redcat@1").unwrap(), "redact");
        assert_eq!(module("redact@7").unwrap(), "redact@2");
        assert_eq!(module("absent"), None);
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
