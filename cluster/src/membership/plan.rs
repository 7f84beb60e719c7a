//! What an operation does next. Pure: the membership as it is in, one step out.
//!
//! Every step can be repeated, and a step that was done is not seen again; so whoever leads asks this again after each
//! step, and a new leader goes on where the old one was cut off.
//!
//! ```text
//! join      listen or move ─▶ catch up ─▶ vote, in place of others of its name ─▶ drop those that only listen
//!           ─▶ outlast the others' views ─▶ end
//! leave     hand over, if it leads ─▶ hand back ─▶ vote without it, or drop it ─▶ outlast its view ─▶ end
//! replace   catch up ─▶ the same, in one change that gives the vote to the new one
//! failed    drop what joined and does not vote ─▶ end
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::raft::types::{Membership, PeerNode};
use crate::state::members::{MemberChange, Operation};

/// Voters at most: beyond, each commit costs more than another failure survived is worth.
pub const VOTERS_MAX: usize = 5;

/// The membership, and what the leader knows beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now<'a> {
    /// One set of voters, or two while it changes.
    pub configs: Vec<BTreeSet<u64>>,
    /// All members.
    pub nodes: BTreeMap<u64, PeerNode>,
    /// Who leads.
    pub leader: u64,
    /// Who comes has caught up.
    pub caught_up: bool,
    /// Who goes holds no lease any more, or can not be asked.
    pub handed_back: bool,
    /// Who goes serves nobody any more: it said so, or its view has ended, or there is none.
    pub outlasted: bool,
    /// Why the operation can not be carried out.
    pub failed: Option<&'a str>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Finish the change of voters that was cut off.
    Settle(BTreeSet<u64>),
    /// Add a learner.
    Listen(u64, PeerNode),
    /// Change a member's name or address.
    Move(u64, PeerNode),
    /// Wait until a learner has what the leader has.
    CatchUp(u64),
    /// Give the leadership away.
    HandOver,
    /// Let the member give its leases back and finish its requests.
    HandBack(u64),
    /// These are the voters.
    Vote(BTreeSet<u64>),
    /// These listen no more.
    Drop(BTreeSet<u64>),
    /// Wait until nobody who was removed can believe in its view any more.
    Outlast,
    /// Nothing is left to do.
    End,
    /// It can not be carried out.
    Fail(&'static str),
}

impl<'a> Now<'a> {
    /// A membership of which nothing else is known.
    pub fn of(membership: &Membership, leader: u64) -> Self {
        let nodes = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        let configs = membership.get_joint_config().clone();
        Now { configs, nodes, leader, caught_up: false, handed_back: false, outlasted: false, failed: None }
    }

    fn end(&self) -> Step {
        if self.outlasted { Step::End } else { Step::Outlast }
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.configs.last().cloned().unwrap_or_default()
    }
}

/// The next step of `operation`; none: there is nothing to do. Without an operation, a change of voters that was cut off
/// is finished all the same.
pub fn next(operation: Option<&Operation>, now: &Now<'_>) -> Option<Step> {
    if let [_, .., target] = now.configs.as_slice() {
        return Some(Step::Settle(target.clone()));
    }
    let operation = operation?;
    Some(match &operation.change {
        MemberChange::Join { id, .. } if now.failed.is_some() => undo(id.0, now),
        _ if now.failed.is_some() => Step::End,
        MemberChange::Join { id, address } => {
            let node = PeerNode { name: operation.node.as_str().to_owned(), address: address.clone() };
            join(id.0, node, now)
        }
        MemberChange::Leave { id } => remove(id.0, None, now),
        MemberChange::Replace { old, new } => remove(old.0, Some(new.0), now),
    })
}

fn undo(id: u64, now: &Now<'_>) -> Step {
    let listens = now.nodes.contains_key(&id) && !now.voters().contains(&id);
    if listens { Step::Drop(BTreeSet::from([id])) } else { Step::End }
}

fn join(id: u64, node: PeerNode, now: &Now<'_>) -> Step {
    match now.nodes.get(&id) {
        None => return Step::Listen(id, node),
        Some(held) if *held != node => return Step::Move(id, node),
        Some(_) => {}
    }
    let voters = now.voters();
    if !voters.contains(&id) && !now.caught_up {
        return Step::CatchUp(id);
    }
    let same_name = |other: &(&u64, &PeerNode)| *other.0 != id && other.1.name == node.name;
    let old: BTreeSet<u64> = now.nodes.iter().filter(same_name).map(|(other, _)| *other).collect();
    let mut target: BTreeSet<u64> = voters.difference(&old).copied().collect();
    if target.len() < VOTERS_MAX {
        target.insert(id);
    }
    if target != voters {
        return Step::Vote(target);
    }
    if old.is_empty() { now.end() } else { Step::Drop(old) }
}

fn remove(gone: u64, heir: Option<u64>, now: &Now<'_>) -> Step {
    if !now.nodes.contains_key(&gone) {
        return now.end();
    }
    let voters = now.voters();
    if let Some(heir) = heir {
        if !now.nodes.contains_key(&heir) {
            return Step::Fail("the node that was to come is no member any more");
        }
        if !voters.contains(&heir) && !now.caught_up {
            return Step::CatchUp(heir);
        }
    }
    let mut target = voters.clone();
    target.remove(&gone);
    target.extend(heir);
    if target.is_empty() {
        return Step::Fail("no voter would be left");
    }
    if target.len() > VOTERS_MAX {
        return Step::Fail("there would be more than 5 voters: let one leave first");
    }
    if gone == now.leader {
        return Step::HandOver;
    }
    if !now.handed_back {
        return Step::HandBack(gone);
    }
    if target == voters { Step::Drop(BTreeSet::from([gone])) } else { Step::Vote(target) }
}

#[cfg(test)]
mod tests {
    use config::ids::NodeName;

    use super::*;
    use crate::state::ids::RaftId;

    fn node(name: &str) -> PeerNode {
        PeerNode { name: name.to_owned(), address: format!("{name}:1") }
    }

    fn now(voters: &[u64], nodes: &[(u64, &str)]) -> Now<'static> {
        let nodes = nodes.iter().map(|(id, name)| (*id, node(name))).collect();
        let configs = vec![voters.iter().copied().collect()];
        let (caught_up, handed_back, outlasted) = (false, false, false);
        Now { configs, nodes, leader: 1, caught_up, handed_back, outlasted, failed: None }
    }

    fn operation(node: &str, change: MemberChange) -> Operation {
        Operation { id: 9, change, node: NodeName::parse(node).expect("a good name"), by: None }
    }

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    /// Carries steps out as the log would, until the end.
    fn run(operation: &Operation, mut now: Now<'static>) -> (Vec<Step>, Now<'static>) {
        let mut steps = Vec::new();
        loop {
            let step = next(Some(operation), &now).expect("an operation is under way");
            assert!(steps.len() < 20, "it has no end: {steps:?}");
            match step.clone() {
                Step::Settle(target) => {
                    let old: BTreeSet<u64> = now.configs.iter().flatten().copied().collect();
                    now.nodes.retain(|id, _| target.contains(id) || !old.contains(id));
                    now.configs = vec![target];
                }
                Step::Vote(target) => now.configs.push(target),
                Step::Listen(id, node) | Step::Move(id, node) => drop(now.nodes.insert(id, node)),
                Step::CatchUp(_) => now.caught_up = true,
                Step::HandOver => now.leader = 2,
                Step::HandBack(_) => now.handed_back = true,
                Step::Outlast => now.outlasted = true,
                Step::Drop(ids) => now.nodes.retain(|id, _| !ids.contains(id)),
                Step::Fail(why) => now.failed = Some(why),
                Step::End => {
                    steps.push(step);
                    return (steps, now);
                }
            }
            steps.push(step);
        }
    }

    #[test]
    fn a_node_listens_catches_up_and_votes() {
        let join = MemberChange::Join { id: RaftId(7), address: "n3:1".to_owned() };
        let (steps, after) = run(&operation("n3", join), now(&[1, 2], &[(1, "n1"), (2, "n2")]));
        assert_eq!(steps[..2], [Step::Listen(7, node("n3")), Step::CatchUp(7)]);
        assert_eq!(after.configs, [set(&[1, 2, 7])]);
    }

    #[test]
    fn a_node_with_a_new_disk_takes_its_old_places_in_one_change() {
        // given a cluster with five voters, one of which lost its disk; its number before that one still listens
        let members = [(1, "n1"), (2, "n2"), (3, "n3"), (4, "n4"), (5, "n5"), (6, "n2")];
        let join = MemberChange::Join { id: RaftId(7), address: "n2:1".to_owned() };
        // when it joins
        let (steps, after) = run(&operation("n2", join), now(&[1, 2, 3, 4, 5], &members));
        // then there are five voters all the time
        assert!(steps.contains(&Step::Vote(set(&[1, 3, 4, 5, 7]))), "{steps:?}");
        assert_eq!(after.configs, [set(&[1, 3, 4, 5, 7])]);
        assert_eq!(after.nodes.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 5, 7]);
    }

    #[test]
    fn a_sixth_node_waits_as_a_learner_until_it_replaces_a_voter() {
        let members = [(1, "n1"), (2, "n2"), (3, "n3"), (4, "n4"), (5, "n5")];
        let join = MemberChange::Join { id: RaftId(7), address: "n6:1".to_owned() };
        let (_, waiting) = run(&operation("n6", join), now(&[1, 2, 3, 4, 5], &members));
        assert_eq!((waiting.configs.clone(), waiting.nodes.len()), (vec![set(&[1, 2, 3, 4, 5])], 6));
        // when it replaces the leader
        let replace = MemberChange::Replace { old: RaftId(1), new: RaftId(7) };
        let (steps, after) = run(&operation("n1", replace), Now { caught_up: false, ..waiting });
        // then the leadership and the leases go first, and the voters change at once
        let wanted = [Step::CatchUp(7), Step::HandOver, Step::HandBack(1), Step::Vote(set(&[2, 3, 4, 5, 7]))];
        assert_eq!(steps[..4], wanted);
        assert_eq!((after.configs, after.nodes.len()), (vec![set(&[2, 3, 4, 5, 7])], 5));
    }

    #[test]
    fn whoever_leads_next_goes_on_wherever_the_last_one_was_cut_off() {
        let members = [(1, "n1"), (2, "n2"), (3, "n3")];
        let join = MemberChange::Join { id: RaftId(7), address: "n2:1".to_owned() };
        for change in [join, MemberChange::Leave { id: RaftId(2) }] {
            let operation = operation("n2", change);
            let (steps, whole) = run(&operation, now(&[1, 2, 3], &members));
            // given an operation that was cut off after each of its steps, with all that only the leader knew
            let mut cut = now(&[1, 2, 3], &members);
            for _ in 0..steps.len() {
                // when the next leader carries it to its end
                let forgotten =
                    Now { caught_up: false, handed_back: false, outlasted: false, leader: 3, ..cut.clone() };
                let (_, after) = run(&operation, forgotten);
                // then the members are the same
                assert_eq!((&after.configs, &after.nodes), (&whole.configs, &whole.nodes));
                let Some(step) = next(Some(&operation), &cut) else { break };
                match step {
                    Step::Vote(target) => cut.configs.push(target),
                    Step::Settle(target) => cut.configs = vec![target],
                    Step::Listen(id, node) => drop(cut.nodes.insert(id, node)),
                    Step::CatchUp(_) => cut.caught_up = true,
                    Step::HandBack(_) => cut.handed_back = true,
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn who_may_still_believe_in_its_view_is_outlasted_once_it_is_no_member() {
        // given a member that does not answer, and a node with a new disk whose old number votes
        let members = [(1, "n1"), (2, "n2"), (3, "n3")];
        let join = MemberChange::Join { id: RaftId(7), address: "n2:1".to_owned() };
        let learner = [&members[..], &[(7, "n2")]].concat();
        let begun = [
            (MemberChange::Leave { id: RaftId(2) }, now(&[1, 2, 3], &members)),
            (join, now(&[1, 2, 3], &learner)),
        ];
        for (change, now) in begun {
            // when it is removed, or the other takes its place
            let (steps, _) = run(&operation("n2", change), now.clone());
            // then that is the last thing before the end, which waits for it
            let [.., Step::Vote(_), Step::Settle(_), Step::Outlast, Step::End] = steps[..] else {
                panic!("{steps:?}")
            };
        }
        // and one that said that it serves nobody is not waited for
        let said = Now { handed_back: true, outlasted: true, ..now(&[1, 2, 3], &members) };
        let (steps, _) = run(&operation("n2", MemberChange::Leave { id: RaftId(2) }), said);
        assert!(!steps.contains(&Step::Outlast), "{steps:?}");
    }

    #[test]
    fn what_failed_leaves_no_half_added_learner_and_no_voter_is_lost_by_it() {
        let join = MemberChange::Join { id: RaftId(7), address: "n3:1".to_owned() };
        let members = [(1, "n1"), (2, "n2"), (7, "n3")];
        let failed = Now { failed: Some("it was too slow"), ..now(&[1, 2], &members) };
        let (steps, _) = run(&operation("n3", join.clone()), failed);
        assert_eq!(steps, [Step::Drop(set(&[7])), Step::End]);
        let voter = Now { failed: Some("it moved and was not found"), ..now(&[1, 2, 7], &members) };
        assert_eq!(run(&operation("n3", join), voter).0, [Step::End]);
        let alone = now(&[1], &[(1, "n1")]);
        let (steps, after) = run(&operation("n1", MemberChange::Leave { id: RaftId(1) }), alone);
        assert_eq!((steps.len(), after.configs), (2, vec![set(&[1])]));
    }

    #[test]
    fn a_change_of_voters_that_nobody_knows_of_is_finished() {
        let joint = Now { configs: vec![set(&[1, 2, 3]), set(&[1, 3])], ..now(&[], &[(1, "n1")]) };
        assert_eq!(next(None, &joint), Some(Step::Settle(set(&[1, 3]))));
        assert_eq!(next(None, &now(&[1, 3], &[(1, "n1"), (3, "n3")])), None);
    }
}
