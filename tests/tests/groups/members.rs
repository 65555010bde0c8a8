//! Members that share partitions, come and go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use millstream_tests::{Agent, Grpc};

use super::{Member, beat_until, fill, reason};

/// Long enough that no test's member is taken for dead.
const SESSION_MS: u32 = 60_000;
/// What a busy machine may take beyond a session.
const SLACK: Duration = Duration::from_secs(5);

/// Whether these members own so many partitions each, and no partition twice.
fn own(members: &[&mut Member], counts: &[usize]) -> bool {
    let mut found: Vec<usize> = members.iter().map(|member| member.owned.len()).collect();
    found.sort_unstable();
    let different: BTreeSet<u32> = members.iter().flat_map(|member| &member.owned).copied().collect();
    found == counts && different.len() == counts.iter().sum::<usize>()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_and_a_third_takes_its_part_of_both() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 6).await;
    let mut a = Member::join(&grpc, SESSION_MS).await;
    assert_eq!(a.owned.len(), 6);
    let mut b = Member::join(&grpc, SESSION_MS).await;
    beat_until(&mut [&mut a, &mut b], |members| own(members, &[3, 3])).await;
    let (of_a, of_b) = (a.owned.clone(), b.owned.clone());
    let mut c = Member::join(&grpc, SESSION_MS).await;
    beat_until(&mut [&mut a, &mut b, &mut c], |members| own(members, &[2, 2, 2])).await;
    assert!(a.owned.is_subset(&of_a) && b.owned.is_subset(&of_b));
    c.leave().await;
    beat_until(&mut [&mut a, &mut b], |members| own(members, &[3, 3])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_heard_of_any_more_is_replaced_within_its_session() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 4).await;
    let own_connection = Grpc::connect(&agent.url()).await;
    let session = Duration::from_secs(2);
    let mut dies = Member::join(&own_connection, session.as_millis() as u32).await;
    let mut lives = Member::join(&grpc, SESSION_MS).await;
    beat_until(&mut [&mut dies, &mut lives], |members| own(members, &[2, 2])).await;
    let heard = Instant::now();
    dies.beat().await.unwrap();
    let dead = Member {
        grpc: grpc.clone(),
        ..dies
    };
    drop(own_connection);
    beat_until(&mut [&mut lives], |members| own(members, &[4])).await;
    let replaced = heard.elapsed();
    // A sixth of a session may be over when it begins anew.
    assert!(
        replaced >= session * 5 / 6 && replaced < session + SLACK,
        "{replaced:?}"
    );
    let late = dead.commit(&[(0, 1)]).await.unwrap_err();
    assert_eq!(reason(&late), "MEMBER_UNKNOWN");
    let mut back = Member::join(&grpc, SESSION_MS).await;
    beat_until(&mut [&mut back, &mut lives], |members| own(members, &[2, 2])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_stay_where_the_agent_is_killed_and_started_again() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 4).await;
    let mut a = Member::join(&grpc, SESSION_MS).await;
    let mut b = Member::join(&grpc, SESSION_MS).await;
    beat_until(&mut [&mut a, &mut b], |members| own(members, &[2, 2])).await;
    let mine = *a.owned.first().unwrap();
    assert!(a.commit(&[(mine, 7)]).await.unwrap().is_empty());
    let agent = agent.kill9().start();
    let grpc = agent.grpc().await;
    for member in [&mut a, &mut b] {
        member.grpc = grpc.clone();
        let before = (member.id.clone(), member.owned.clone());
        member.beat().await.unwrap();
        assert_eq!((member.id.clone(), member.owned.clone()), before);
    }
    assert_eq!(super::committed(&grpc).await, [(mine, 7)]);
    assert!(a.commit(&[(mine, 8)]).await.unwrap().is_empty());
}
