//! `millstream group`.

use millstream_tests::Agent;
use serde_json::{Value, json};

use super::{GROUP, Member, committed, fill};

fn offsets(answer: &Value) -> Vec<(u64, u64)> {
    let offsets = answer.as_array().unwrap().iter();
    offsets
        .map(|offset| {
            (
                offset["partition"].as_u64().unwrap(),
                offset["offset"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_listed_shown_reset_and_deleted() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let json = |line: &str| agent.cli(line.split(' ').chain(["--output", "json"])).json();
    assert_eq!(json("group list"), json!([]));
    let member = Member::join(&grpc, 60_000).await;
    member.commit(&[(0, 4)]).await.unwrap();

    let list = json("group list");
    assert_eq!(
        (&list[0]["name"], &list[0]["members"], &list[0]["topics"]),
        (&json!(GROUP), &json!(1), &json!(["orders"]))
    );
    let show = json("group show readers");
    assert_eq!(show["lag"], 16);
    assert_eq!(show["members"][0]["client_id"], "test");
    assert_eq!(show["partitions"][0]["committed_offset"], 4);
    assert_eq!(show["partitions"][0]["lag"], 6);
    assert!(show["partitions"][1]["committed_offset"].is_null());
    assert_eq!(show["partitions"][1]["member_id"], show["members"][0]["member_id"]);
    let table = agent.cli(["group", "show", GROUP]).text();
    assert!(
        table.contains("1 members, 16 records behind") && table.contains("orders 0, 1"),
        "{table}"
    );

    for line in ["group reset readers --to earliest", "group delete readers"] {
        let error = agent.cli(line.split(' ')).error();
        assert!(error.contains("has 1 members"), "{error}");
    }
    member.leave().await;
    for (line, expected) in [
        ("--to latest", vec![(0, 10)]),
        ("--to earliest --topic orders", vec![(0, 0), (1, 0)]),
        ("--to 7 --topic orders --partition 1", vec![(1, 7)]),
        ("--to @1003", vec![(0, 3), (1, 3)]),
        ("--to @2030-01-01 --topic orders --partition 0", vec![(0, 10)]),
    ] {
        let before = committed(&grpc).await;
        let dry = json(&format!("group reset readers {line} --dry-run"));
        assert_eq!(offsets(&dry), expected, "{line}");
        assert_eq!(committed(&grpc).await, before, "{line}");
        assert_eq!(
            offsets(&json(&format!("group reset readers {line}"))),
            expected,
            "{line}"
        );
    }
    assert_eq!(committed(&grpc).await, [(0, 10), (1, 3)]);
    for (line, word) in [
        ("group reset readers --to 11", "out of range"),
        ("group reset readers --to 1 --topic order", "Did you mean orders?"),
        (
            "group reset readers --to 1 --partition 0 --topic a --topic b",
            "one --topic",
        ),
        ("group reset absent --to 1", "no group"),
        ("group show absent", "millstream group list"),
        ("group delete absent", "no group"),
    ] {
        let error = agent.cli(line.split(' ')).error();
        assert!(error.contains(word), "{line}: {error}");
    }
    assert_eq!(json("group delete readers"), json!({"deleted": GROUP}));
    assert_eq!(json("group list"), json!([]));
    assert!(committed(&grpc).await.is_empty());
}
