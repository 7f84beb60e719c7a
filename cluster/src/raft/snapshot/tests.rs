//! What a snapshot file holds comes back whole, or is refused in words.

use std::io;

use bytes::Bytes;
use config::gateway::GatewayDocument;
use config::ids::{NodeName, QuotaName, TenantId};
use config::quota::{KeyPart, Limit, OnQuorumLoss, Quota, Tenant};
use openraft::errors::ReplicationClosed;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};

use super::*;
use crate::fatal::Bell;
use crate::peer::message::log::LogIdV1;
use crate::peer::message::raft::{SnapshotChunkV1, SnapshotReplyV1};
use crate::peer::tests::fixture;
use crate::peer::{Caller, Door, Lane, Peers, Serve, codec};
use crate::raft::network::{Addresses, Network, Transfers};
use crate::raft::types::{PeerNode, Vote};
use crate::state::command::{Batch, Command, DocumentChange, Item, Member, Outcome, Register, Stamped};
use crate::state::ids::{Key, RaftId, Tau};
use crate::state::key::limit_id;
use crate::state::members::MemberChange;
use crate::tls::Tls;
use crate::world::BoxFuture;

const SECOND: u64 = 1_000_000_000;

fn quota() -> Quota {
    Quota {
        name: QuotaName::parse("q").expect("a good name"),
        key: vec![KeyPart::Tenant, KeyPart::Client],
        limit: Limit { tokens: 1, per_ns: SECOND, burst: 10 },
        wait: None,
        on_quorum_loss: OnQuorumLoss::Deny,
    }
}

/// A state with two documents, a session, and `keys` buckets, every second of them with a lease.
fn content(keys: u64) -> Content {
    let mut state = State::default();
    let name = NodeName::parse("n1").expect("a good name");
    let founder = Member { name, address: "n1:1".to_owned() };
    let mut index = 0;
    let mut apply = |command: Command| {
        index += 1;
        state.apply(index, 1, &command)
    };
    let stamped = |s| Stamped {
        term: 1,
        stamp: Tau(s * SECOND),
        document: None,
        registers: Vec::new(),
        batches: Vec::new(),
    };
    apply(Command::Found { cluster_id: 1, secret: [7; 16], founder });
    let own = Tenant {
        id: TenantId::parse("acme").expect("a good name"),
        plan: None,
        limits: [(quota().name, Limit { burst: 20, ..quota().limit })].into(),
    };
    for (n, tenants) in [(0, vec![]), (1, vec![own])] {
        let document = GatewayDocument { quotas: vec![quota()], tenants, ..GatewayDocument::default() };
        let change =
            DocumentChange { json: document.to_canonical_json().into(), expected: None, request_id: n };
        apply(Command::Stamped(Stamped { document: Some(change), ..stamped(1) }));
    }
    let registers = vec![Register { node: RaftId(1), nonce: 5 }];
    let Outcome::Stamped(outcome) = apply(Command::Stamped(Stamped { registers, ..stamped(1) })) else {
        panic!("a stamped entry has a stamped outcome")
    };
    let items = (0..keys).map(|n| Item {
        key: Key { limit: limit_id(&quota()), tenant: 1, value: n + 2 },
        lid: None,
        held: 0,
        spent: 0,
        min: 0,
        max: 1 + n % 3,
        ttl_ns: 1 + n % 2 * 100 * SECOND,
    });
    let batches = vec![Batch { session: outcome.sessions[0], seq: 1, items: items.collect() }];
    apply(Command::Stamped(Stamped { batches, ..stamped(2) }));
    apply(Command::Stamped(stamped(3)));
    assert_eq!(state.ledger().buckets(), keys);
    let last_log_id = Some(LogIdV1 { term: 1, index }.into());
    Content { meta: SnapshotMeta { last_log_id, ..SnapshotMeta::default() }, state }
}

/// The file, record by record.
fn records(content: &Content) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let add = |record: &[u8]| {
        records.push(record.to_vec());
        Ok(())
    };
    encode(content, add).expect("memory does not fail");
    records
}

fn read(records: &[Vec<u8>], piece: usize) -> io::Result<Content> {
    let mut decoder = Decoder::default();
    for bytes in records.concat().chunks(piece) {
        decoder.push(bytes)?;
    }
    decoder.finish()
}

fn refused(records: &[Vec<u8>]) -> String {
    let error = read(records, PIECE_BYTES).expect_err("it is damaged");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(error.to_string().contains("the snapshot is damaged at byte "), "{error}");
    error.to_string()
}

#[test]
fn a_file_in_pieces_of_any_size_is_the_state_that_was_written() {
    let content = content(3000);
    let records = records(&content);
    assert!(records.len() >= 8, "{} records", records.len());
    for piece in [1, 13, 4096, PIECE_BYTES] {
        let read = read(&records, piece).expect("it is whole");
        assert_eq!((read.meta, &read.state), (content.meta.clone(), &content.state));
        read.state.check_all();
    }
}

#[test]
fn a_state_without_anything_is_a_file_too() {
    let read = read(&records(&Content::default()), 1).expect("it is whole");
    assert_eq!(read.state, State::default());
}

#[test]
fn who_waits_what_is_under_way_and_what_has_ended_comes_back() {
    let mut content = content(3);
    let join = |id| MemberChange::Join { id: RaftId(id), address: "n2:2".to_owned() };
    let member = Member { name: NodeName::parse("n2").expect("a good name"), address: "n2:1".to_owned() };
    for (index, command) in [
        (100, Command::Admit(member.clone())),
        (101, Command::Admit(member)),
        (102, Command::Begin(join(100))),
        (103, Command::End { operation: 102, failed: Some("slow".to_owned()) }),
        (104, Command::Begin(join(101))),
    ] {
        content.state.apply(index, 1, &command);
    }
    let read = read(&records(&content), PIECE_BYTES).expect("it is whole");
    assert_eq!(read.state, content.state);
    let members = read.state.members();
    assert!(members.is_waiting(RaftId(100)) && members.operation().is_some() && members.ended().len() == 1);
}

#[test]
fn any_flipped_bit_is_noticed() {
    let records = records(&content(40));
    let whole = records.concat();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refused(&[damaged]);
    }
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let whole = records(&content(40)).concat();
    for len in 0..whole.len() {
        assert!(refused(&[whole[..len].to_vec()]).contains("wanted its end record"));
    }
}

#[test]
fn parts_left_out_doubled_swapped_or_added_are_refused_in_words() {
    let good = records(&content(3000));
    let last = good.len() - 1;
    for n in 1..last {
        let without = [&good[..n], &good[n + 1..]].concat();
        assert!(refused(&without).contains(&format!("found part {}, wanted part {n}", n + 1)));
        let doubled = [&good[..=n], &good[n..]].concat();
        assert!(refused(&doubled).contains(&format!("found part {n}, wanted part {}", n + 1)));
        let mut swapped = good.clone();
        swapped.swap(n, n + 1);
        assert!(refused(&swapped).contains(&format!("found part {}, wanted part {n}", n + 1)));
    }
    let with_more = [&good[..], &good[last..]].concat();
    assert!(refused(&with_more).contains("wanted nothing after the end"));
    let with_rest = [&good[..], &[good[last][..9].to_vec()]].concat();
    assert!(refused(&with_rest).contains("wanted nothing after the end"));
    assert!(refused(&good[1..]).contains("kind 6"), "a file without its head");
}

#[test]
fn parts_of_two_snapshots_do_not_pass_for_one() {
    // given two snapshots that differ in one bucket
    let content = content(3000);
    let mut later = content.clone();
    later.state.apply(
        100,
        1,
        &Command::Stamped(Stamped {
            term: 1,
            stamp: Tau(3 * SECOND),
            document: None,
            registers: Vec::new(),
            batches: vec![Batch {
                session: crate::state::ids::SessionId(1),
                seq: 2,
                items: vec![Item {
                    key: Key { limit: limit_id(&quota()), tenant: 1, value: 7 },
                    lid: None,
                    held: 0,
                    spent: 0,
                    min: 0,
                    max: 1,
                    ttl_ns: SECOND,
                }],
            }],
        }),
    );
    let (mut good, later) = (records(&content), records(&later));
    assert_eq!(good.len(), later.len());
    // when the part with that bucket comes from the other
    let differ: Vec<usize> = (1..good.len() - 1).filter(|n| good[*n] != later[*n]).collect();
    assert!(!differ.is_empty());
    good[differ[0]] = later[differ[0]].clone();
    // then the digest says so
    assert!(refused(&good).contains("digest"));
}

/// A changed layout is another version: nodes of two builds send each other these files.
#[test]
fn a_file_keeps_its_bytes() {
    let records: Vec<String> = records(&content(3)).iter().map(|record| hex(record)).collect();
    // Parts 1 and 2 are documents, whose bytes are their own affair; the end has the digest of them.
    let [head, _, _, parts @ .., _] = records.as_slice() else { panic!("found {records:?}") };
    assert_eq!(
        head,
        "510104004c0000000101060000000101070707070707070707070707070707070101026e31046e313a31000000fc005ed0b203010001\
         01010501fc00943577fd017cacbf17000000003c0000000000fb83020000c9f33992"
    );
    let wanted = [
        "51010600050000000301000000a076f31d",
        "5101060019000000040101fc00ca9a3b01fdd123bd9646185d8501fc00ca9a3b0a13ba84ce",
        "5101060019000000050102fc00ca9a3b01fdd123bd9646185d8501fc00ca9a3b0a2013ea1d",
        "510106001c000000060201fdd123bd9646185d85fdc71a25ef3e052c0b01fc00ca9a3b14b31fc76e",
        "5101060032000000070302fdd123bd9646185d85001400fc00ca9a3b0200fdd123bd9646185d8501fdc71a25ef3e052c0b1400fc00ca\
         9a3b0200def5e9ed",
        "510106005e000000080403fdd123bd9646185d8501040e00fc009435770201010303fc0194357700fdd123bd9646185d8501031000fc\
         009435770201010202fd017cacbf1700000000fdd123bd9646185d8501021200fc009435770201010101fc0194357700185163be",
    ];
    assert_eq!(parts, wanted);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_record_that_claims_to_be_too_long_is_refused_before_it_comes() {
    let mut head = records(&Content::default())[0].clone();
    head[4..8].copy_from_slice(&u32::try_from(codec::DISK_BYTES_MAX + 1).expect("fits").to_le_bytes());
    assert!(refused(&[head[..8].to_vec()]).contains("at most"));
}

/// A file of so many zeros.
struct Zeros(u64);

impl Reading for Zeros {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        Ok(())
    }
}

/// Takes pieces, and notes for each where it begins and what the sender then says was acknowledged.
struct Taking(Transfers, Arc<Mutex<Vec<(u64, u64)>>>);

impl Serve for Taking {
    fn admits(&self, _: &Caller, _: Lane) -> Result<(), String> {
        Ok(())
    }

    fn serve(&self, _: Caller, _: Lane, _: u16, payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let piece: SnapshotChunkV1 = codec::decode(&payload).expect("a piece");
        self.1.lock().push((piece.offset, self.0.bytes(2)));
        let end = piece.offset + piece.bytes.0.len() as u64;
        let reply = if end == piece.total {
            SnapshotReplyV1::Done(piece.vote)
        } else {
            SnapshotReplyV1::Continue(end)
        };
        Box::pin(async move { Ok(codec::encode(&reply).into()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_says_how_far_a_snapshot_is_as_long_as_it_is_on_its_way() {
    // given a node that takes a snapshot of three pieces
    let (transfers, seen) = (Transfers::default(), Arc::<Mutex<Vec<(u64, u64)>>>::default());
    let tls = || fixture::fixed(Tls::plaintext(([127, 0, 0, 1], 0).into(), "127.0.0.1:1").expect("loopback"));
    let (me, bell) = (fixture::me("n2", Some(1), Some(2)), Bell::new("/nowhere".into()).0);
    let taking = Arc::new(Taking(transfers.clone(), seen.clone()));
    let listen = ([127, 0, 0, 1], 0).into();
    let door = Door::open(&fixture::world(), listen, tls(), me, taking, &bell).expect("a free port");
    let peers = Peers::new(fixture::world(), tls(), fixture::me("n1", Some(1), Some(1)));
    // when it is sent
    let node = PeerNode { name: "n2".to_owned(), address: door.local_addr().to_string() };
    let mut network = Network::new(peers, Addresses::default(), transfers.clone(), fixture::world());
    let mut client = network.new_snapshot_client(2, &node).await;
    let piece = PIECE_BYTES as u64;
    let snapshot = Snapshot {
        meta: SnapshotMeta::default(),
        snapshot: Parcel::Kept(File(Arc::new(Zeros(2 * piece + 1)))),
    };
    let never = std::future::pending::<ReplicationClosed>();
    let option = RPCOption::new(std::time::Duration::from_secs(60));
    client.full_snapshot(Vote::new_committed(1, 1), snapshot, never, option).await.expect("it is taken");
    // then the sender knew of each piece what was there before it, and of nothing once it was in
    assert_eq!(*seen.lock(), [(0, 0), (piece, piece), (2 * piece, 2 * piece)]);
    assert_eq!(transfers.bytes(2), 0);
}
