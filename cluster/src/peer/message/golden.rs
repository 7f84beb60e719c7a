//! The bytes of every versioned struct, frozen: a test that fails here means that nodes of two builds, or a build and its
//! own disk, no longer understand each other. Write a `…V2` instead.

use super::Blob;
use super::control::*;
use super::log::*;
use super::members::*;
use super::quota::*;
use super::raft::*;
use crate::peer::codec::{decode, encode};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value is written as these bytes, and read from them.
macro_rules! frozen {
    ($value:expr, $type:ty, $bytes:literal) => {{
        let value: $type = $value;
        assert_eq!(hex(&encode(&value)), $bytes, stringify!($type));
        assert_eq!(decode::<$type>(&encode(&value)).expect("it was just written"), value);
    }};
}

const ID: LogIdV1 = LogIdV1 { term: 2, index: 300 };
const VOTE: VoteV1 = VoteV1 { term: 2, node: 3, committed: true };
const KEY: KeyV1 = KeyV1 { limit: 1, tenant: 2, value: 3 };

fn member() -> MemberV1 {
    MemberV1 { name: "n1".into(), address: "a:1".into() }
}

fn membership() -> MembershipV1 {
    let node = NodeV1 { id: 1, name: "n1".into(), address: "a:1".into() };
    MembershipV1 { voters: vec![vec![1]], nodes: vec![node] }
}

fn stamped() -> StampedV1 {
    let item = ItemV1 { key: KEY, lid: Some(4), held: 5, spent: 6, min: 7, max: 8, ttl_ns: 9 };
    StampedV1 {
        term: 2,
        stamp: 10,
        document: Some(DocumentChangeV1 { json: "{}".into(), expected: Some(1), request_id: 11 }),
        registers: vec![(1, 12)],
        batches: vec![BatchV1 { session: 1, seq: 2, items: vec![item] }],
    }
}

#[test]
fn what_the_log_holds_keeps_its_bytes() {
    frozen!(VOTE, VoteV1, "020301");
    frozen!(EntryV1 { id: ID, payload: PayloadV1::Blank }, EntryV1, "02fb2c0100");
    frozen!(PayloadV1::Membership(membership()), PayloadV1, "020101010101026e3103613a31");
    frozen!(
        PayloadV1::Command(CommandV1::Stamped(stamped())),
        PayloadV1,
        "0100020a01027b7d01010b01010c0101020101020301040506070809"
    );
    let found = CommandV1::Found { cluster_id: 1, secret: [7; 16], founder: member() };
    frozen!(found, CommandV1, "010107070707070707070707070707070707026e3103613a31");
    frozen!(CommandV1::Admit(member()), CommandV1, "02026e3103613a31");
    let join = MemberChangeV1::Join { id: 1, address: "a:1".into() };
    frozen!(CommandV1::Begin(join), CommandV1, "03000103613a31");
    frozen!(CommandV1::Begin(MemberChangeV1::Leave(1)), CommandV1, "030101");
    frozen!(CommandV1::Begin(MemberChangeV1::Replace { old: 1, new: 2 }), CommandV1, "03020102");
    frozen!(CommandV1::End { operation: 7, failed: Some("no".into()) }, CommandV1, "040701026e6f");
    let file = SnapshotFileV1 { last: Some(ID), membership_at: None, membership: membership(), state: 5u8 };
    frozen!(file, SnapshotFileV1<u8>, "0102fb2c01000101010101026e3103613a3105");
    let identity = IdentityV1 { cluster_id: 1, raft_id: 2, name: "n1".into(), removed: true };
    frozen!(identity, IdentityV1, "0102026e3101");
    frozen!(SnapshotPartV1 { number: 300, part: 5u8 }, SnapshotPartV1<u8>, "fb2c0105");
}

#[test]
fn what_consensus_cores_say_keeps_its_bytes() {
    let entries = vec![EntryV1 { id: ID, payload: PayloadV1::Blank }];
    frozen!(
        AppendV1 { vote: VOTE, prev: Some(ID), commit: None, entries },
        AppendV1,
        "0203010102fb2c01000102fb2c0100"
    );
    frozen!(AppendReplyV1::Success, AppendReplyV1, "00");
    frozen!(AppendReplyV1::Partial(Some(ID)), AppendReplyV1, "010102fb2c01");
    frozen!(AppendReplyV1::Conflict, AppendReplyV1, "02");
    frozen!(AppendReplyV1::HigherVote(VOTE), AppendReplyV1, "03020301");
    frozen!(
        VoteRequestV1 { vote: VOTE, last: Some(ID), transfer: true },
        VoteRequestV1,
        "0203010102fb2c0101"
    );
    frozen!(VoteReplyV1 { vote: VOTE, granted: true, last: None }, VoteReplyV1, "0203010100");
    let chunk = SnapshotChunkV1 { vote: VOTE, last: None, total: 3, offset: 0, bytes: Blob(vec![1, 2, 3]) };
    frozen!(chunk, SnapshotChunkV1, "02030100030003010203");
    frozen!(SnapshotReplyV1::Continue(3), SnapshotReplyV1, "0003");
    frozen!(SnapshotReplyV1::Done(VOTE), SnapshotReplyV1, "01020301");
    frozen!(TransferV1 { from: VOTE, to: 1, last: None }, TransferV1, "0203010100");
    frozen!(TransferReplyV1::Taken, TransferReplyV1, "00");
    frozen!(TransferReplyV1::VoteChanged { expected: VOTE, actual: VOTE }, TransferReplyV1, "01020301020301");
    frozen!(
        TransferReplyV1::LogNotFlushed { expected: Some(ID), actual: None },
        TransferReplyV1,
        "020102fb2c0100"
    );
}

#[test]
fn what_gateways_and_the_leader_say_keeps_its_bytes() {
    let item =
        AskItemV1 { key: KEY, lid: None, held: 1, spent: 2, need: 3, min: 4, want: 5, demand_per_ks: 6 };
    frozen!(AskV1 { session: 1, seq: 2, items: vec![item] }, AskV1, "01020101020300010203040506");
    let granted = GrantedV1 {
        key: KEY,
        keep: true,
        lid: Some(1),
        grant: 2,
        ttl_ns: 3,
        retry_after_ns: 4,
        hold: true,
        tight: false,
        plenty: true,
        left: -5,
        limit: LimitV1 { tokens: 1, per_ns: 2, burst: 3 },
        unknown: false,
        full: true,
    };
    frozen!(
        AskAnswerV1::Reply { session: 1, seq: 2, items: vec![granted] },
        AskAnswerV1,
        "00010201010203010101020304010001090102030001"
    );
    frozen!(AskAnswerV1::Error(AskErrorV1::UnknownSession), AskAnswerV1, "0100");
    frozen!(AskErrorV1::NotLeader, AskErrorV1, "01");
    frozen!(AskErrorV1::Unreachable, AskErrorV1, "02");
    frozen!(AskErrorV1::Overloaded, AskErrorV1, "03");
    frozen!(RegisterV1 { node: 1, nonce: 2 }, RegisterV1, "0102");
    frozen!(RegisterAnswerV1::Session(1), RegisterAnswerV1, "0001");
    frozen!(RegisterAnswerV1::Error(AskErrorV1::Overloaded), RegisterAnswerV1, "0103");
    frozen!(PushV1::Recall(KEY), PushV1, "00010203");
    frozen!(PushV1::Changed(1), PushV1, "0101");
}

#[test]
fn what_replicas_say_keeps_its_bytes() {
    frozen!(ApplyV1 { json: "{}".into(), expected: None, request_id: 1 }, ApplyV1, "027b7d0001");
    let applied = ApplyAnswerV1::Applied { revision: 1, unconfirmed: vec!["n2".into()] };
    frozen!(applied, ApplyAnswerV1, "000101026e32");
    frozen!(ApplyAnswerV1::Refused("no".into()), ApplyAnswerV1, "01026e6f");
    frozen!(ApplyAnswerV1::Again, ApplyAnswerV1, "02");
    let join = JoinV1 { name: "n1".into(), address: "a:1".into(), admitted: Some((1, 2)), forward: true };
    frozen!(join, JoinV1, "026e3103613a3101010201");
    frozen!(JoinAnswerV1::Admitted { cluster_id: 1, raft_id: 2 }, JoinAnswerV1, "000102");
    frozen!(JoinAnswerV1::Underway, JoinAnswerV1, "01");
    frozen!(JoinAnswerV1::Member, JoinAnswerV1, "02");
    frozen!(JoinAnswerV1::Refused("no".into()), JoinAnswerV1, "03026e6f");
    frozen!(JoinAnswerV1::Again, JoinAnswerV1, "04");
    frozen!(JoinAnswerV1::Removed, JoinAnswerV1, "05");
    frozen!(ProbeV1 { node: 1, revision: 2, applied: 3 }, ProbeV1, "010203");
    frozen!(ProbeAnswerV1::UpTo(1), ProbeAnswerV1, "0001");
    frozen!(ProbeAnswerV1::NotLeader, ProbeAnswerV1, "01");
}

#[test]
fn what_is_said_of_members_keeps_its_bytes() {
    frozen!(MembersV1::Report, MembersV1, "00");
    frozen!(MembersV1::Leave("n1".into()), MembersV1, "01026e31");
    frozen!(MembersV1::Replace { old: "n1".into(), new: "n2".into() }, MembersV1, "02026e31026e32");
    frozen!(MembersV1::HandBack(1), MembersV1, "0301");
    frozen!(MembersV1::Removed(1), MembersV1, "0401");
    let (kind, node, by) = ("leave".to_owned(), "n1".to_owned(), None);
    let under_way = ProgressV1 {
        id: 1,
        kind: kind.clone(),
        node: node.clone(),
        by: by.clone(),
        step: "go".into(),
        since_ms: 2,
        entries: Some((3, 4)),
    };
    let ended = EndedV1 { id: 5, kind, node, by, failed: Some("no".into()) };
    let report = ReportV1 {
        operation: Some(under_way),
        ended: vec![ended],
        begun: Some(1),
        last_index: 6,
        matched: vec![(1, None), (2, Some(7))],
    };
    frozen!(
        MembersAnswerV1::Report(Box::new(report)),
        MembersAnswerV1,
        "000101056c65617665026e310002676f0201030401\
         05056c65617665026e310001026e6f010106020100020107"
    );
    frozen!(MembersAnswerV1::Refused(RefusalV1::Unsafe, "no".into()), MembersAnswerV1, "0102026e6f");
    frozen!(MembersAnswerV1::Refused(RefusalV1::Busy, "".into()), MembersAnswerV1, "010000");
    frozen!(MembersAnswerV1::Refused(RefusalV1::Unknown, "".into()), MembersAnswerV1, "010100");
    frozen!(MembersAnswerV1::Draining, MembersAnswerV1, "02");
    frozen!(MembersAnswerV1::Ready, MembersAnswerV1, "03");
    frozen!(MembersAnswerV1::NotLeader, MembersAnswerV1, "04");
}
