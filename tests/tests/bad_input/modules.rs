//! Files that are no modules, and modules that misbehave.

use std::fs;

use millstream_proto::v1::PipelineSide::{Fetch, Produce};
use millstream_tests::{Agent, Setup, record, values, wat};
use tonic::Code;

use crate::{assert_refused, assert_says};

#[tokio::test]
async fn what_is_no_module_is_not_deployed() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let cases = [
        (b"#!/bin/sh\n".as_slice().into(), "not WebAssembly"),
        (b"".as_slice().into(), "not WebAssembly"),
        (wat::core_module(wat::KEEPS), "core WebAssembly module, not a component"),
        (
            wat::empty_component(),
            "not of the world millstream:module/module@1.0.0",
        ),
        (
            wat::component_with_import("wasi:cli/environment@0.2.0"),
            "`wasi:cli/environment@0.2.0`, which the host does not offer",
        ),
    ];
    for (component, reason) in cases {
        let words = ["module bad is refused", reason];
        let file = agent.setup().folder().join("bad.wasm");
        fs::write(&file, &component).unwrap();
        assert_refused(grpc.deploy("bad", component).await, Code::InvalidArgument, &words);
        let error = agent
            .cli(["module".as_ref(), "deploy".as_ref(), file.as_os_str()])
            .error();
        assert_says(&error, &words);
    }
    assert_eq!(
        agent.cli(["module", "list", "--output", "json"]).json(),
        serde_json::json!([])
    );
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn a_module_cut_short_is_not_deployed() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let whole = wat::module(wat::KEEPS);
    for bytes in [8, 100, whole.len() / 2, whole.len() - 1] {
        let deployed = grpc.deploy("cut", whole.slice(..bytes)).await;
        assert_refused(deployed, Code::InvalidArgument, &["module cut is refused"]);
    }
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn a_bad_module_name_is_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    for name in ["", "../x", "A", &"x".repeat(300)] {
        let deployed = grpc.deploy(name, wat::module(wat::KEEPS)).await;
        assert_refused(deployed, Code::InvalidArgument, &["no module name", "allowed are"]);
    }
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn a_stage_of_an_unknown_module_or_parameter_changes_nothing() {
    let access_log = millstream_tests::modules::component("access-log");
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.assert_serves("t").await;
    let added = grpc.add_stage("t", Produce, "absent", &[]).await;
    assert_refused(added, Code::NotFound, &["absent"]);
    let removed = grpc.remove_stage("t", Fetch).await;
    assert_refused(removed, Code::NotFound, &["\"t\"", "fetch"]);
    grpc.deploy("access-log", access_log).await.unwrap();
    let added = grpc.add_stage("t", Produce, "access-log", &[("unparsed", "kep")]).await;
    assert_refused(
        added,
        Code::InvalidArgument,
        &["access-log@1", "kep", "keep, drop, reject"],
    );
    let answer = grpc.produce("t", 0, vec![record("v")]).await.unwrap();
    assert_eq!((answer.base_offset, answer.pipeline_version), (1, 0));
}

/// The module fails its request; without it the next one works, and what was there before is untouched.
async fn assert_fails_alone(body: &str, cause: &[&str]) {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.produce("t", 0, vec![record("before")]).await.unwrap();
    grpc.deploy("bad", wat::module(wat::KEEPS)).await.unwrap();
    grpc.deploy("bad", wat::module(body)).await.unwrap();
    grpc.add_stage_untried("t", Produce, "bad").await.unwrap();

    // A second request meets an instance that failed before.
    for _ in 0..2 {
        let produced = grpc.produce("t", 0, vec![record("lost"), record("lost")]).await;
        let words = [&["module bad@2 failed on", "nothing was stored"], cause].concat();
        assert_refused(produced, Code::Aborted, &words);
    }
    let error = agent.cli_reading(["produce", "t"], b"lost\n").error();
    assert_says(
        &error,
        &["module bad@2 failed", "0 of the 1 records sent were acknowledged"],
    );
    grpc.assert_serves("other").await;

    grpc.remove_stage("t", Produce).await.unwrap();
    let answer = grpc.produce("t", 0, vec![record("after")]).await.unwrap();
    assert_eq!(answer.base_offset, 1);
    assert_eq!(values(&grpc.read("t", 0, 0).await.unwrap()), ["before", "after"]);
}

#[tokio::test]
async fn a_module_that_loops_for_ever_is_stopped() {
    assert_fails_alone(wat::LOOPS, &["more than 100 ms of CPU in process"]).await;
}

#[tokio::test]
async fn a_module_that_allocates_without_end_is_stopped() {
    assert_fails_alone(wat::ALLOCATES, &["bytes of memory in process", "67108864 allowed"]).await;
}

#[tokio::test]
async fn a_module_that_returns_bytes_that_are_no_records_is_refused() {
    assert_fails_alone(wat::RETURNS_NO_RECORDS, &["wrong answer", "record"]).await;
}

#[tokio::test]
async fn a_module_that_traps_fails_its_request() {
    assert_fails_alone(wat::TRAPS, &["trapped in process"]).await;
}

#[tokio::test]
async fn routes_are_refused() {
    assert_fails_alone(wat::ROUTES, &["routes are not offered yet"]).await;
}

#[tokio::test]
async fn other_topics_go_on_while_a_module_loops() {
    let agent = Setup::new()
        .env("MILLSTREAM_MODULE_DEADLINE_MS", 3_000)
        .env("MILLSTREAM_MODULE_THREADS", 2)
        .start();
    let grpc = agent.grpc().await;
    for (topic, body) in [("stuck", wat::LOOPS), ("busy", wat::KEEPS)] {
        grpc.create_topic(topic, 1).await.unwrap();
        grpc.deploy(topic, wat::module(body)).await.unwrap();
        grpc.add_stage(topic, Produce, topic, &[]).await.unwrap();
    }
    grpc.produce("busy", 0, vec![record("0")]).await.unwrap();

    let stuck = {
        let grpc = grpc.clone();
        tokio::spawn(async move { grpc.produce("stuck", 0, vec![record("v")]).await })
    };
    for offset in 1..=10 {
        let answer = grpc.produce("busy", 0, vec![record(offset.to_string())]).await.unwrap();
        assert_eq!((answer.base_offset, answer.pipeline_version), (offset, 1));
    }
    grpc.assert_serves("plain").await;
    assert!(!stuck.is_finished(), "it was to loop meanwhile");
    assert_refused(stuck.await.unwrap(), Code::Aborted, &["stuck@1", "3000 ms of CPU"]);
}

#[tokio::test]
async fn a_module_that_fails_on_fetch_names_itself_and_the_offset() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.assert_serves("t").await;
    grpc.deploy("bad", wat::module(wat::TRAPS)).await.unwrap();
    grpc.add_stage_untried("t", Fetch, "bad").await.unwrap();
    let words = ["bad@1 failed on fetch at offset 0", "trapped"];
    assert_refused(grpc.fetch("t", 0, 0).await, Code::Aborted, &words);
    assert_says(&agent.cli(["consume", "t"]).error(), &words);
    grpc.remove_stage("t", Fetch).await.unwrap();
    assert_eq!(values(&grpc.read("t", 0, 0).await.unwrap()), ["works"]);
}
