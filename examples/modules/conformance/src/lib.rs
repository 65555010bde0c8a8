//! The module that the contract's conformance suite (`sdk/wit/conformance`) runs: it does what its mode says. Its twin in C
//! is `examples/c/conformance`.

use millstream_guest::prelude::*;

/// What to do with the records; `sdk/wit/README.md` has the words.
#[derive(Choice, Clone, Copy)]
pub enum Mode {
    /// They stay.
    Unchanged,
    /// Those at even positions of the call stay, the others go.
    KeepEven,
    /// They go.
    DropAll,
    /// The letters a to z of each value become capitals.
    Upper,
    /// Each becomes two.
    Double,
    /// Each takes the time at which its batch was appended.
    Stamp,
    /// Those at odd positions are rejected.
    RejectOdd,
    /// They stay; the topic is logged, and they are counted.
    Report,
    /// The call fails.
    Fail,
    /// The call traps.
    Trap,
}

/// What a stage sets.
#[derive(Params)]
pub struct Params {
    /// What becomes of the records.
    mode: Mode,
}

/// Does what its mode says.
#[batch]
pub fn obey(records: &Records, out: &mut Decisions, params: &Params) -> Result<(), &'static str> {
    let mode = params.mode;
    if let Mode::Report = mode {
        info!("{}", records.context().topic);
        count("records", records.len() as u64);
    }
    for (index, record) in records.iter().enumerate() {
        let odd = index % 2 == 1;
        match mode {
            Mode::KeepEven if odd => out.drop(index),
            Mode::RejectOdd if odd => out.reject(index, "odd"),
            Mode::Unchanged | Mode::Report | Mode::KeepEven | Mode::RejectOdd => {}
            Mode::DropAll => out.drop(index),
            Mode::Upper => {
                if let Some(value) = record.value() {
                    out.replace(index).set_value(value.to_ascii_uppercase());
                }
            }
            Mode::Double => {
                out.push(index);
                out.push(index);
            }
            Mode::Stamp => out.replace(index).set_timestamp_ms(record.append_time_ms()),
            Mode::Fail => return Err("told to fail"),
            Mode::Trap => panic!("told to trap"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream_guest::testing::{Fate, Harness, Sample};

    use super::*;

    fn fates(mode: &str) -> Result<Vec<Fate>, String> {
        let samples = ["a", "b"].map(Sample::value);
        Harness::<obey>::new(&[("mode", mode)])?.try_run(&samples)
    }

    #[test]
    fn it_does_what_its_mode_says() {
        assert_eq!(fates("unchanged").unwrap(), [Fate::Kept, Fate::Kept]);
        assert_eq!(fates("keep-even").unwrap(), [Fate::Kept, Fate::Dropped]);
        assert_eq!(fates("reject-odd").unwrap()[1], Fate::Rejected("odd".to_owned()));
        assert_eq!(fates("upper").unwrap()[1], Fate::Became(vec![Sample::value("B")]));
        assert_eq!(fates("double").unwrap()[0], Fate::Became(vec![Sample::value("a"); 2]));
        assert_eq!(fates("fail").unwrap_err(), "told to fail");
        assert!(fates("nonsense").is_err());
    }
}
