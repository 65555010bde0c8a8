//! `docs/formats.md` says what is so: in each table the fields stand one behind the other and add up, and every example is
//! what the golden file has there.

use std::path::Path;

/// One row: where the field stands, if that is fixed, how long it is in the example, and how the example starts.
struct Row {
    at: Option<usize>,
    length: usize,
    example: Vec<u8>,
}

/// One table, under its heading.
#[derive(Default)]
struct Table {
    heading: String,
    golden: Vec<u8>,
    base: usize,
    rows: Vec<Row>,
}

fn read(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [at, length, _, example] = cells[..] else {
        panic!("four cells: {line}")
    };
    // A length that varies stands as `n = 11`: 11 in the example.
    let length = length.rsplit("= ").next().unwrap();
    let example = example.trim_matches('`').trim_end_matches('…').split_whitespace();
    Row {
        at: (!at.is_empty()).then(|| at.parse().unwrap()),
        length: length.parse().unwrap_or_else(|_| panic!("a length: {line}")),
        example: example.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect(),
    }
}

fn tables(page: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let heading = heading.to_string();
            tables.push(Table {
                heading,
                ..Table::default()
            });
        } else if let Some(example) = line.strip_prefix("Example: `") {
            let table = tables.last_mut().expect("an example has a heading");
            let (file, rest) = example.split_once("` from byte ").expect("an example tells where");
            table.golden = read(&format!("tests/golden/{file}"));
            table.base = rest.trim_end_matches(" on.").parse().unwrap();
        } else if line.starts_with("| ") && !line.starts_with("| at ") {
            tables.last_mut().expect("a table has a heading").rows.push(row(line));
        }
    }
    tables.retain(|table| !table.rows.is_empty());
    tables
}

#[test]
fn every_table_adds_up_and_every_example_is_in_the_golden_file() {
    let page = String::from_utf8(read("../../docs/formats.md")).unwrap();
    let tables = tables(&page);
    assert_eq!(tables.len(), 12, "two of batches, five of logs and five of segments");
    for table in tables {
        let mut position = 0;
        for row in &table.rows {
            let place = format!("{}, byte {position}", table.heading);
            assert!(
                row.at.is_none_or(|at| at == position),
                "{place}: it is said to be at {:?}",
                row.at
            );
            let from = table.base + position;
            let found = &table.golden[from..from + row.length];
            assert!(
                row.example.len() == row.length || row.length > 16,
                "{place}: the example has another length"
            );
            assert!(
                found.starts_with(&row.example),
                "{place}: the golden file has {found:02x?}"
            );
            position += row.length;
        }
        if let Some((_, total)) = table.heading.split_once(": ") {
            assert_eq!(format!("{position} bytes"), total, "{}", table.heading);
        }
    }
}
