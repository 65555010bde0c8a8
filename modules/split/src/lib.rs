//! A module that makes one record of each element of a JSON array. The records keep key, headers and timestamp.

use json_path::{Path, Paths, find};
use millstream_guest::prelude::*;
use on_invalid::OnInvalid;

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// Where the array is: $.items, or $ for a value that is an array.
    #[param(default = "$")]
    path: String,
    /// What becomes of a record that is not JSON or has no array at the path: reject, drop or keep.
    #[param(default = "reject")]
    invalid: OnInvalid,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Split {
    array: Paths,
    elements: Paths,
    invalid: OnInvalid,
}

impl Prepare for Split {
    type Params = Params;

    fn prepare(params: Params, context: &Context) -> Result<Self, String> {
        if context.on_fetch {
            return Err("split makes several records of one, which only a stage on produce may".to_owned());
        }
        let wrong = |error: String| format!("parameter \"path\": {error}");
        let path: Path = params
            .path
            .parse()
            .map_err(|error: json_path::PathError| wrong(error.to_string()))?;
        let every = Path::every();
        Ok(Self {
            array: Paths::new(&[path]).map_err(wrong)?,
            elements: Paths::new(&[every]).map_err(wrong)?,
            invalid: params.invalid,
        })
    }
}

/// Makes one record of each element of a JSON array.
#[flat_map]
pub fn elements(record: &Record, out: &mut Outputs, split: &Split) -> Result<(), String> {
    let why = match find_arrays(record.value().unwrap_or_default(), split) {
        Ok(arrays) => {
            for array in arrays {
                // The array has been read once, so it is JSON.
                let read = find(array.as_bytes(), &split.elements, |element| {
                    out.push().set_value(element.json)
                });
                read.map_err(|error| error.to_string())?;
            }
            return Ok(());
        }
        Err(why) => why,
    };
    split.invalid.settle(why, out)
}

/// The arrays at the path: several where it has `[*]`.
fn find_arrays<'a>(value: &'a [u8], split: &Split) -> Result<Vec<&'a str>, String> {
    let mut arrays = Vec::new();
    find(value, &split.array, |found| arrays.push(found.json))
        .map_err(|error| format!("the value is not JSON: {error}"))?;
    if arrays.is_empty() {
        return Err("the value has nothing at the path".to_owned());
    }
    if arrays.iter().any(|array| !array.starts_with('[')) {
        return Err("what is at the path is no array".to_owned());
    }
    Ok(arrays)
}
