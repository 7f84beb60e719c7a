//! Who holds a raft id, and the one membership operation that may be under way.
//!
//! An operation is in the log from its begin to its end, so that a new leader goes on with it, and a second one can not
//! begin meanwhile. Who was removed holds no raft id any more; a number that the log has passed and nobody holds is never
//! given out again, so it is the mark of a node that was removed. A node that asks again and again to be let in, and never
//! comes, leaves no trace of its own making: only its last numbers are kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use config::ids::NodeName;
use serde::{Deserialize, Serialize};

use super::command::Member;
use super::digest::Digester;
use super::ids::RaftId;

/// Numbers of one name that never became a member's; with one more, the oldest is forgotten.
const WAITING_MAX: usize = 8;
/// Operations whose result is kept: nodes that wait for a place begin the next one at once, and whoever ordered one asks a
/// little later what became of it.
pub const ENDED_MAX: usize = 8;

/// Members, and nodes that were given a raft id to become one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub(super) by_id: BTreeMap<RaftId, Member>,
    /// Of these, the ones whose first join has not been carried out.
    pub(super) waiting: BTreeSet<RaftId>,
    pub(super) operation: Option<Operation>,
    pub(super) ended: Arc<VecDeque<Ended>>,
}

/// A change of members that an operation carries out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// Makes a node a member, or changes its address; it takes the place of others of its name.
    Join {
        /// The node.
        id: RaftId,
        /// Where it is.
        address: String,
    },
    /// Removes a member.
    Leave {
        /// The member.
        id: RaftId,
    },
    /// Removes a member and gives its vote to another.
    Replace {
        /// Who goes.
        old: RaftId,
        /// Who comes.
        new: RaftId,
    },
}

impl MemberChange {
    /// What operators call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Replace { .. } => "replace",
        }
    }

    /// The node that the change lets in, or at another address.
    pub fn joins(&self) -> Option<RaftId> {
        match self {
            Self::Join { id, .. } => Some(*id),
            Self::Leave { .. } | Self::Replace { .. } => None,
        }
    }

    /// The member that the change removes by its number.
    pub fn removes(&self) -> Option<RaftId> {
        match self {
            Self::Join { .. } => None,
            Self::Leave { id } | Self::Replace { old: id, .. } => Some(*id),
        }
    }
}

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Index of the entry with which it began.
    pub id: u64,
    /// What it does.
    pub change: MemberChange,
    /// The node that joins, leaves, or is replaced.
    pub node: NodeName,
    /// By whom it is replaced.
    pub by: Option<NodeName>,
}

/// An operation that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The operation.
    pub operation: Operation,
    /// Why nothing came of it; none: it was carried out.
    pub failed: Option<String>,
}

/// What came of the wish to begin an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is under way, under this number.
    Yes(u64),
    /// Another one is.
    Busy,
    /// It names a number that nobody holds.
    Unknown,
}

impl Members {
    /// All that hold a raft id, in its order.
    pub fn by_id(&self) -> &BTreeMap<RaftId, Member> {
        &self.by_id
    }

    /// Who holds `id`.
    pub fn get(&self, id: RaftId) -> Option<&Member> {
        self.by_id.get(&id)
    }

    /// The operation under way.
    pub fn operation(&self) -> Option<&Operation> {
        self.operation.as_ref()
    }

    /// Whom the operation under way removes: by their number, or as the others of a name that were members.
    pub fn going(&self) -> impl Iterator<Item = (RaftId, &Member)> {
        let goes = |id: RaftId, member: &Member| match self.operation.as_ref() {
            None => false,
            Some(Operation { change: MemberChange::Join { id: joined, .. }, node, .. }) => {
                id != *joined && member.name == *node && !self.waiting.contains(&id)
            }
            Some(operation) => operation.change.removes() == Some(id),
        };
        self.by_id.iter().filter(move |(id, member)| goes(**id, member)).map(|(id, member)| (*id, member))
    }

    /// The operations that ended last, at most [`ENDED_MAX`], the newest at the end.
    pub fn ended(&self) -> &Arc<VecDeque<Ended>> {
        &self.ended
    }

    /// Whether `id` was given out and never became a member's.
    pub fn is_waiting(&self, id: RaftId) -> bool {
        self.waiting.contains(&id)
    }

    /// A member from the beginning.
    pub(super) fn seat(&mut self, id: RaftId, member: Member) {
        self.by_id.insert(id, member);
    }

    pub(super) fn admit(&mut self, id: RaftId, member: Member) {
        let name = member.name.clone();
        self.by_id.insert(id, member);
        self.waiting.insert(id);
        let joining = self.operation.as_ref().and_then(|operation| operation.change.joins());
        let waits =
            |id: &RaftId| Some(*id) != joining && self.by_id.get(id).is_some_and(|it| it.name == name);
        let waiting: Vec<RaftId> = self.waiting.iter().copied().filter(waits).collect();
        for forgotten in &waiting[..waiting.len().saturating_sub(WAITING_MAX)] {
            self.by_id.remove(forgotten);
            self.waiting.remove(forgotten);
        }
        self.check();
    }

    pub(super) fn begin(&mut self, index: u64, change: &MemberChange) -> Begun {
        if self.operation.is_some() {
            return Begun::Busy;
        }
        let name = |id: &RaftId| self.by_id.get(id).map(|member| member.name.clone());
        let (node, by) = match change {
            MemberChange::Join { id, .. } | MemberChange::Leave { id } => (name(id), None),
            MemberChange::Replace { old, new } => (name(old), name(new)),
        };
        let known = by.is_some() == matches!(change, MemberChange::Replace { .. });
        let Some(node) = node.filter(|_| known) else { return Begun::Unknown };
        if let MemberChange::Join { id, address } = change
            && let Some(member) = self.by_id.get_mut(id)
        {
            member.address.clone_from(address);
        }
        self.operation = Some(Operation { id: index, change: change.clone(), node, by });
        Begun::Yes(index)
    }

    /// Does nothing if another operation is under way: two leaders may both say that one has ended.
    pub(super) fn end(&mut self, id: u64, failed: Option<&str>) {
        let Some(operation) = self.operation.take_if(|operation| operation.id == id) else { return };
        if failed.is_none() {
            match &operation.change {
                MemberChange::Join { id: joined, .. } => {
                    self.by_id.retain(|id, member| id == joined || member.name != operation.node);
                    self.waiting.remove(joined);
                }
                MemberChange::Leave { id } | MemberChange::Replace { old: id, .. } => {
                    self.by_id.remove(id);
                }
            }
        }
        self.waiting.retain(|id| self.by_id.contains_key(id));
        let ended = Arc::make_mut(&mut self.ended);
        ended.push_back(Ended { operation, failed: failed.map(str::to_owned) });
        if ended.len() > ENDED_MAX {
            ended.pop_front();
        }
        self.check();
    }

    fn check(&self) {
        debug_assert!(self.waiting.iter().all(|id| self.by_id.contains_key(id)), "who waits holds a number");
    }

    pub(super) fn digest(&self, digester: &mut Digester) {
        for (id, member) in &self.by_id {
            digester.number(id.0).bytes(member.name.as_str().as_bytes()).bytes(member.address.as_bytes());
        }
        for id in &self.waiting {
            digester.number(id.0);
        }
        for operation in self.operation.iter().chain(self.ended.iter().map(|ended| &ended.operation)) {
            digester.number(operation.id).bytes(operation.change.kind().as_bytes());
        }
        digester.number(self.ended.iter().filter(|ended| ended.failed.is_some()).count() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[(u64, &str)]) -> Members {
        let mut members = Members::default();
        for (id, name) in names {
            let name = NodeName::parse(name).expect("a good name");
            members.admit(RaftId(*id), Member { name, address: "a:1".to_owned() });
        }
        members
    }

    fn ids(members: &Members) -> Vec<u64> {
        members.by_id.keys().map(|id| id.0).collect()
    }

    #[test]
    fn one_operation_at_a_time_and_only_with_nodes_that_are_known() {
        // given three members, of which one is about to leave
        let mut members = members(&[(1, "n1"), (10, "n2"), (20, "n3")]);
        let leave = MemberChange::Leave { id: RaftId(10) };
        assert_eq!(members.begin(30, &MemberChange::Leave { id: RaftId(11) }), Begun::Unknown);
        let replace = MemberChange::Replace { old: RaftId(1), new: RaftId(11) };
        assert_eq!(members.begin(30, &replace), Begun::Unknown);
        assert_eq!(members.begin(30, &leave), Begun::Yes(30));
        // when another one is to leave, it has to wait
        assert_eq!(members.begin(31, &MemberChange::Leave { id: RaftId(20) }), Begun::Busy);
        // and an end of another operation does not end this one
        members.end(29, None);
        assert_eq!(members.operation().map(|operation| operation.id), Some(30));
        // then with its own end the number is nobody's any more
        members.end(30, None);
        assert_eq!(ids(&members), [1, 20]);
        let ended = members.ended().back().expect("it has ended");
        assert_eq!((ended.operation.node.as_str(), &ended.failed), ("n2", &None));
    }

    #[test]
    fn a_name_that_is_let_in_again_and_again_keeps_its_last_numbers_and_every_member() {
        // given a member, one of another name that waits, and a join that is under way
        let mut members = Members::default();
        let node =
            |name| Member { name: NodeName::parse(name).expect("a good name"), address: "a:1".to_owned() };
        members.seat(RaftId(1), node("n1"));
        members.admit(RaftId(2), node("n2"));
        members.admit(RaftId(3), node("n1"));
        let join = MemberChange::Join { id: RaftId(3), address: "b:2".to_owned() };
        assert_eq!(members.begin(4, &join), Begun::Yes(4));
        // when the name of the member is let in a hundred times
        for id in 100..200 {
            members.admit(RaftId(id), node("n1"));
        }
        // then the last numbers are left, and nobody else has lost one
        let last: Vec<u64> = (192..200).collect();
        assert_eq!(ids(&members), [&[1, 2, 3], &last[..]].concat());
        // and a join that failed leaves one that waits, among the others
        members.end(4, Some("it was too slow"));
        members.admit(RaftId(200), node("n1"));
        assert_eq!(ids(&members)[..3], [1, 2, 193]);
        // and one that was carried out leaves a member: of the others of its name, one was a member and has to go
        let join = MemberChange::Join { id: RaftId(200), address: "b:2".to_owned() };
        assert_eq!(members.begin(201, &join), Begun::Yes(201));
        assert_eq!(members.going().map(|(id, _)| id.0).collect::<Vec<_>>(), [1]);
        members.end(201, None);
        assert_eq!(ids(&members), [2, 200]);
        assert!(members.is_waiting(RaftId(2)) && !members.is_waiting(RaftId(200)));
    }

    #[test]
    fn the_last_results_are_kept() {
        let mut members = members(&[(1, "n1")]);
        for id in 1..=20 {
            let join = MemberChange::Join { id: RaftId(1), address: "a:1".to_owned() };
            assert_eq!(members.begin(id, &join), Begun::Yes(id));
            members.end(id, (id == 19).then_some("it was too slow"));
        }
        let kept: Vec<_> = members.ended().iter().map(|it| (it.operation.id, it.failed.is_some())).collect();
        assert_eq!((kept.len(), kept[0], kept[6], kept[7]), (8, (13, false), (19, true), (20, false)));
    }

    #[test]
    fn what_failed_removes_nobody_and_what_joined_takes_the_place_of_all_of_its_name() {
        // given a node that lost its disk twice: its third number joins
        let mut members = members(&[(1, "n1"), (10, "n2"), (20, "n2"), (30, "n2")]);
        let join = MemberChange::Join { id: RaftId(30), address: "b:2".to_owned() };
        // when it fails at first
        assert_eq!(members.begin(40, &join), Begun::Yes(40));
        members.end(40, Some("it was too slow"));
        assert_eq!(ids(&members), [1, 10, 20, 30]);
        // and then succeeds
        assert_eq!(members.begin(50, &join), Begun::Yes(50));
        members.end(50, None);
        // then it alone is left of its name, where it said it is
        assert_eq!(ids(&members), [1, 30]);
        assert_eq!(members.get(RaftId(30)).map(|member| member.address.as_str()), Some("b:2"));
    }
}
