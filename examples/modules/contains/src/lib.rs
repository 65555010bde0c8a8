//! Keeps records whose value contains a text: a filter that prepares a searcher once and uses it for every record.

use memchr::memmem::Finder;
use millstream_guest::prelude::*;

/// What a stage may set: `millstream pipeline add logs contains --on produce --param text=timeout`.
#[derive(Debug, Params)]
pub struct Params {
    /// Records whose value does not contain it are dropped.
    text: String,
}

/// The text, ready to be searched for.
#[derive(Debug)]
pub struct Search(Finder<'static>);

impl Prepare for Search {
    type Params = Params;

    fn prepare(params: Params, _context: &Context) -> Result<Self, String> {
        if params.text.is_empty() {
            return Err("parameter \"text\" is empty, which every value contains".to_owned());
        }
        Ok(Search(Finder::new(&params.text).into_owned()))
    }
}

/// Keeps records whose value contains a text.
#[filter]
pub fn keep(record: &Record, search: &Search) -> bool {
    record.value().is_some_and(|value| search.0.find(value).is_some())
}

#[cfg(test)]
mod tests {
    use millstream_guest::testing::{Fate, Harness, Sample};

    use super::*;

    #[test]
    fn records_without_the_text_are_dropped() {
        let mut timeouts = Harness::<keep>::new(&[("text", "timeout")]).unwrap();
        let samples = [
            Sample::value("GET / timeout after 3 s"),
            Sample::value("GET / timeou"),
            Sample::value(""),
            Sample::tombstone().key("timeout"),
        ];
        let (kept, dropped) = (Fate::Kept, Fate::Dropped);
        assert_eq!(
            timeouts.run(&samples),
            [kept, dropped.clone(), dropped.clone(), dropped]
        );
    }

    #[test]
    fn an_empty_text_is_refused() {
        let error = Harness::<keep>::new(&[("text", "")]).err().unwrap();
        assert!(error.contains("\"text\" is empty"), "{error}");
    }
}
