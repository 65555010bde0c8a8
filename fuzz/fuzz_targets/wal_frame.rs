#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream_log::fuzzing::wal_frame(data));
