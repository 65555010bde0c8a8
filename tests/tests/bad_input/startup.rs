//! Ports and data folders that others use.

use millstream_tests::{Agent, Setup};

use crate::assert_says;

#[tokio::test]
async fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let agent = Agent::start();
    for (flag, address) in [("--listen", agent.grpc_address()), ("--http", agent.http_address())] {
        let setup = Setup::new().flag(flag).flag(address);
        let ended = setup.try_start().expect_err("two agents on one port");
        assert_says(ended.error(), &[address, "in use by another process", flag]);
    }
    agent.grpc().await.assert_serves("t").await;
}

#[tokio::test]
async fn a_data_folder_in_use_is_left_to_its_agent() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.assert_serves("t").await;
    let ended = agent.setup().try_start().expect_err("two agents on one folder");
    let folder = agent.data_dir().display().to_string();
    assert_says(ended.error(), &[&folder, "in use by another agent", "--data-dir"]);
    grpc.assert_serves("u").await;

    let setup = agent.kill9();
    setup.start().grpc().await.assert_serves("v").await;
}

#[tokio::test]
async fn a_metadata_file_in_use_is_left_to_its_agent() {
    let metadata = |setup: Setup, path: &str| setup.flag("--metadata").flag(format!("sqlite:{path}"));
    let first = Setup::new();
    let path = first.folder().join("shared.db").display().to_string();
    let agent = metadata(first, &path).start();
    let ended = metadata(Setup::new(), &path)
        .try_start()
        .expect_err("two agents on one file");
    assert_says(ended.error(), &[&path, "in use by another agent", "--metadata"]);
    agent.grpc().await.assert_serves("t").await;
}

#[test]
fn a_data_folder_that_is_a_file_is_refused() {
    let setup = Setup::new();
    std::fs::write(setup.data_dir(), "x").unwrap();
    let ended = setup.try_start().expect_err("it is a file");
    assert_says(ended.error(), &[&setup.data_dir().display().to_string()]);
}
