//! Compiled modules on disk: taken where they are as they were written, compiled anew else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use millstream_wasm::{Engine, EngineSettings, Limits, Module, ModuleError};
use tempfile::TempDir;

use crate::running::run;
use crate::support::{Fragments, Heard, processing, runner};

fn engine(dir: &Path) -> Engine {
    Engine::with(EngineSettings {
        cache_dir: Some(dir.to_owned()),
        ..EngineSettings::default()
    })
    .unwrap()
}

/// The files of the cache, by name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Compiles with a new engine, as after a start of the agent, and runs the module.
fn compile_and_run(dir: &Path, component: &[u8]) {
    let engine = engine(dir);
    let module = Module::compile(&engine, component).unwrap();
    let mut runner = runner(
        &engine,
        module,
        &Limits::default(),
        std::sync::Arc::new(Heard::default()),
    );
    run(&mut runner, &["a"]).unwrap();
}

#[test]
fn a_module_is_kept_once_and_used_by_the_next_engine() {
    let dir = TempDir::new().unwrap();
    let component = Fragments::default().component();
    compile_and_run(dir.path(), &component);
    let [file] = &files(dir.path())[..] else {
        panic!("{:?}", files(dir.path()))
    };
    let written = fs::metadata(file).unwrap().modified().unwrap();
    let bytes = fs::read(file).unwrap();
    let long_ago = written - std::time::Duration::from_secs(1_000);
    fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    compile_and_run(dir.path(), &component);
    assert_eq!(files(dir.path()).len(), 1);
    assert_eq!(fs::read(file).unwrap(), bytes);
    assert!(
        fs::metadata(file).unwrap().modified().unwrap() > long_ago,
        "its use was noted"
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(dir.path()), mode(file)), (0o700, 0o600));
}

#[test]
fn a_damaged_file_is_replaced() {
    let dir = TempDir::new().unwrap();
    let component = Fragments::default().component();
    compile_and_run(dir.path(), &component);
    let file = files(dir.path()).remove(0);
    let good = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [
        Vec::new(),
        good[..50].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"more"].concat(),
        flipped(0),
        flipped(20),
        flipped(60),
        flipped(good.len() / 2),
        flipped(good.len() - 1),
    ];
    for bytes in damaged {
        fs::write(&file, &bytes).unwrap();
        compile_and_run(dir.path(), &component);
        let now = fs::read(&file).unwrap();
        assert_eq!(now.len(), good.len());
        assert_ne!(now, bytes);
    }
}

#[test]
fn code_of_another_module_under_this_name_is_not_run() {
    let dir = TempDir::new().unwrap();
    let component = Fragments::default().component();
    compile_and_run(dir.path(), &component);
    let file = files(dir.path()).remove(0);
    let good = fs::read(&file).unwrap();
    compile_and_run(dir.path(), &processing("(call $reject (i32.const 0))").component());
    let other = files(dir.path()).into_iter().find(|path| *path != file).unwrap();
    fs::copy(other, &file).unwrap();
    compile_and_run(dir.path(), &component);
    assert_eq!(fs::read(&file).unwrap().len(), good.len());
}

#[test]
fn a_file_that_others_may_write_or_that_is_a_link_is_not_run() {
    let dir = TempDir::new().unwrap();
    let component = Fragments::default().component();
    compile_and_run(dir.path(), &component);
    let file = files(dir.path()).remove(0);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    compile_and_run(dir.path(), &component);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let elsewhere = TempDir::new().unwrap();
    let moved = elsewhere.path().join("code");
    fs::rename(&file, &moved).unwrap();
    symlink(&moved, &file).unwrap();
    compile_and_run(dir.path(), &component);
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
}

#[test]
fn what_a_crash_left_half_written_is_cleared_away() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("abc.tmp"), b"half").unwrap();
    fs::write(dir.path().join("README"), b"not ours").unwrap();
    compile_and_run(dir.path(), &Fragments::default().component());
    let names: Vec<_> = files(dir.path())
        .iter()
        .map(|path| path.extension().map(ToOwned::to_owned))
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(dir.path().join("README").exists());
}

#[test]
fn a_folder_that_cannot_hold_code_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Engine::with(EngineSettings {
        cache_dir: Some(file.clone()),
        ..EngineSettings::default()
    })
    .err()
    .unwrap();
    assert!(matches!(error, ModuleError::Engine { .. }));
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn a_full_or_lost_folder_costs_time_only() {
    let dir = TempDir::new().unwrap();
    let engine = engine(dir.path());
    fs::remove_dir_all(dir.path()).unwrap();
    Module::compile(&engine, &Fragments::default().component()).unwrap();
}
