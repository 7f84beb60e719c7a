//! What was spent stays spent: over the replacement of every process, one by one and all at once.
//!
//! `at_most: 10 in any 1h` is a bucket of 5 that gains 5 in an hour, so within these minutes it admits 5 and not one more.

mod support;

use support::{Answer, Cluster, GATEWAY};

#[test]
fn a_spent_quota_stays_spent_over_kills_of_every_node() {
    support::in_calm(|| {
        // given a cluster in which one tenant has spent 4
        let mut cluster = Cluster::start(3, GATEWAY);
        let token = cluster.token("acme", &[]);
        cluster.spend(4, "/hourly", &token);
        // when every node is killed and started again, one by one
        for node in 0..3 {
            cluster.kill(node);
            cluster.leader();
            cluster.start_node(node);
            cluster.wait_until_ready();
        }
        // then no more than what the bucket had left is admitted, by whichever node is asked. Tokens that a killed process
        // held as a lease count as spent, so it may be less.
        nine_more_admit_at_most_one(&cluster, &token);

        // when all are killed at once and started again
        let token = cluster.token("globex", &[]);
        cluster.spend(4, "/hourly", &token);
        for node in 0..3 {
            cluster.kill(node);
        }
        for node in 0..3 {
            cluster.start_node(node);
        }
        cluster.leader();
        cluster.wait_until_ready();
        nine_more_admit_at_most_one(&cluster, &token);
    });
}

/// And every answer is a decision: with all nodes ready and a leader, nobody is told that nothing could be decided.
fn nine_more_admit_at_most_one(cluster: &Cluster, token: &str) {
    let after: Vec<Answer> = (0..9).map(|number| cluster.get(number % 3, "/hourly", Some(token))).collect();
    let statuses: Vec<u16> = after.iter().map(|answer| answer.status).collect();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    support::always(admitted <= 1, || format!("admitted {admitted} of the one token left: {statuses:?}"));
    let undecided = after.iter().position(|answer| ![200, 429].contains(&answer.status));
    if let Some(number) = undecided {
        panic!("{statuses:?}\n{:?}\n{}", after[number], cluster.log(number % 3));
    }
}
