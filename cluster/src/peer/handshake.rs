//! Who calls whom, and whether they belong together. Pure: bytes and identities in, a verdict out.
//!
//! The caller sends its hello first; the other side checks it and answers with its own, or with a reason. Layout of
//! a hello, little-endian:
//!
//! ```text
//! version u8 = 1 | protocol min u16 | protocol max u16 | lane u8
//! has cluster u8 | cluster u128 | has raft id u8 | raft id u64 | name length u8 | name
//! ```
//!
//! A field that is absent (`has … = 0`) is written as zeros.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use config::ids::NodeName;

use super::{Identity, Lane, Target};
use crate::state::ids::RaftId;

/// The oldest message protocol that this build speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest message protocol that this build speaks.
pub const PROTOCOL_MAX: u16 = 1;

const HELLO_VERSION: u8 = 1;

/// What a node says of itself when a connection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloV1 {
    /// Oldest and newest protocol it speaks.
    pub protocol: (u16, u16),
    /// What the connection is for.
    pub lane: Lane,
    /// Its cluster, if it knows one.
    pub cluster: Option<u128>,
    /// Its number, if it has one.
    pub raft_id: Option<RaftId>,
    /// Its name.
    pub name: NodeName,
}

/// Why two nodes do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Not a hello.
    #[error("malformed hello: {0}")]
    Malformed(&'static str),
    /// No version of the protocol in common.
    #[error(
        "the peer speaks protocol {theirs:?}, this node {PROTOCOL_MIN} to {PROTOCOL_MAX}: upgrade the older"
    )]
    Protocol {
        /// The peer's oldest and newest.
        theirs: (u16, u16),
    },
    /// Nodes of two clusters.
    #[error(
        "the peer belongs to cluster {theirs:032x}, this node to {ours:032x}: if one of them was recovered from the other, \
         start the node of the old cluster with an empty data directory"
    )]
    Cluster {
        /// The peer's.
        theirs: u128,
        /// Ours.
        ours: u128,
    },
    /// The address leads to another node than the one that was meant.
    #[error("the address leads to node {found}, wanted {wanted}: correct its address")]
    Name {
        /// Who answered.
        found: NodeName,
        /// Who was meant.
        wanted: NodeName,
    },
    /// The node was given a new number, or lost its disk.
    #[error("node {name} has raft id {found:?}, wanted {wanted}: it lost its data or joined again")]
    RaftId {
        /// The node.
        name: NodeName,
        /// Its number now.
        found: Option<u64>,
        /// The number that was meant.
        wanted: u64,
    },
    /// A connection from this node to itself, or two nodes of one name.
    #[error("the peer is called {0} like this node: an address leads to itself, or two nodes share a name")]
    Oneself(NodeName),
    /// The certificate is another node's.
    #[error("the peer calls itself {name}, but {reason}")]
    NotCertified {
        /// The declared name.
        name: NodeName,
        /// What the certificate says.
        reason: String,
    },
    /// The answer is for another lane.
    #[error("the peer answered for lane {0:?}")]
    Lane(Lane),
}

impl HelloV1 {
    /// What `me` says on `lane`.
    pub fn of(me: &Identity, lane: Lane) -> Self {
        Self {
            protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
            lane,
            cluster: me.cluster,
            raft_id: me.raft_id,
            name: me.name.clone(),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(96);
        out.put_u8(HELLO_VERSION);
        out.put_u16_le(self.protocol.0);
        out.put_u16_le(self.protocol.1);
        out.put_u8(self.lane.code());
        out.put_u8(self.cluster.is_some().into());
        out.put_u128_le(self.cluster.unwrap_or(0));
        out.put_u8(self.raft_id.is_some().into());
        out.put_u64_le(self.raft_id.map_or(0, |id| id.0));
        let name = self.name.as_str().as_bytes();
        out.put_u8(u8::try_from(name.len()).expect("a name has at most 64 bytes"));
        out.put_slice(name);
        out.freeze()
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`Mismatch::Malformed`].
    pub fn decode(mut bytes: Bytes) -> Result<Self, Mismatch> {
        let short = |_| Mismatch::Malformed("it ends early");
        if bytes.try_get_u8().map_err(short)? != HELLO_VERSION {
            return Err(Mismatch::Malformed("its version is unknown"));
        }
        let protocol = (bytes.try_get_u16_le().map_err(short)?, bytes.try_get_u16_le().map_err(short)?);
        let lane = Lane::from_code(bytes.try_get_u8().map_err(short)?)
            .ok_or(Mismatch::Malformed("its lane is unknown"))?;
        let has_cluster = flag(bytes.try_get_u8().map_err(short)?)?;
        let cluster = bytes.try_get_u128_le().map_err(short)?;
        let has_raft_id = flag(bytes.try_get_u8().map_err(short)?)?;
        let raft_id = bytes.try_get_u64_le().map_err(short)?;
        let len = usize::from(bytes.try_get_u8().map_err(short)?);
        if bytes.len() != len {
            return Err(Mismatch::Malformed("its name has another length than it says"));
        }
        let name = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|name| NodeName::parse(name).ok())
            .ok_or(Mismatch::Malformed("its name is not a node name"))?;
        Ok(Self {
            protocol,
            lane,
            cluster: has_cluster.then_some(cluster),
            raft_id: has_raft_id.then_some(RaftId(raft_id)),
            name,
        })
    }

    /// The server's verdict on the caller's hello; `certified` says why a name is not the caller's.
    ///
    /// # Errors
    /// [`Mismatch`]: the reason is for the log, and for the caller.
    pub fn check_caller(
        &self,
        me: &Identity,
        certified: impl Fn(&NodeName) -> Result<(), String>,
    ) -> Result<u16, Mismatch> {
        // First, so that a stranger learns nothing else.
        certified(&self.name).map_err(|reason| Mismatch::NotCertified { name: self.name.clone(), reason })?;
        self.check_common(me)
    }

    /// The caller's verdict on the server's hello.
    ///
    /// # Errors
    /// [`Mismatch`]: whom we reached is not whom we meant.
    pub fn check_server(
        &self,
        me: &Identity,
        target: &Target,
        lane: Lane,
        certified: impl Fn(&NodeName) -> Result<(), String>,
    ) -> Result<u16, Mismatch> {
        certified(&self.name).map_err(|reason| Mismatch::NotCertified { name: self.name.clone(), reason })?;
        let protocol = self.check_common(me)?;
        if self.name != target.name {
            return Err(Mismatch::Name { found: self.name.clone(), wanted: target.name.clone() });
        }
        if let Some(wanted) = target.raft_id
            && self.raft_id != Some(wanted)
        {
            let found = self.raft_id.map(|id| id.0);
            return Err(Mismatch::RaftId { name: self.name.clone(), found, wanted: wanted.0 });
        }
        if self.lane != lane { Err(Mismatch::Lane(self.lane)) } else { Ok(protocol) }
    }

    fn check_common(&self, me: &Identity) -> Result<u16, Mismatch> {
        let protocol = common((PROTOCOL_MIN, PROTOCOL_MAX), self.protocol)
            .ok_or(Mismatch::Protocol { theirs: self.protocol })?;
        if self.name == me.name || (self.raft_id.is_some() && self.raft_id == me.raft_id) {
            // Two clusters may give out the same number; that is told as such below.
            if self.cluster == me.cluster || self.name == me.name {
                return Err(Mismatch::Oneself(self.name.clone()));
            }
        }
        match (self.cluster, me.cluster) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(Mismatch::Cluster { theirs, ours }),
            _ => Ok(protocol),
        }
    }
}

/// The newest protocol in both ranges (oldest, newest); both ends come to the same one.
fn common(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let newest = ours.1.min(theirs.1);
    (newest >= ours.0.max(theirs.0)).then_some(newest)
}

fn flag(byte: u8) -> Result<bool, Mismatch> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Mismatch::Malformed("a flag is neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("valid")
    }

    fn identity(text: &str, cluster: Option<u128>, raft_id: Option<u64>) -> Identity {
        Identity { name: name(text), cluster, raft_id: raft_id.map(RaftId) }
    }

    fn target(text: &str, raft_id: Option<u64>) -> Target {
        Target { name: name(text), address: "h:1".into(), raft_id: raft_id.map(RaftId) }
    }

    fn anyone(_: &NodeName) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn the_layout_never_changes() {
        let hello = HelloV1::of(&identity("n1", Some(0x0a), Some(7)), Lane::Quota);
        let mut golden = vec![1, 1, 0, 1, 0, 4, 1, 0x0a];
        golden.extend([0; 15]);
        golden.extend([1, 7, 0, 0, 0, 0, 0, 0, 0, 2, b'n', b'1']);
        assert_eq!(hello.encode()[..], golden);
        assert_eq!(HelloV1::decode(hello.encode()), Ok(hello));
    }

    #[test]
    fn a_joiner_knows_no_cluster_and_is_welcome() {
        let hello = HelloV1::of(&identity("n4", None, None), Lane::Control);
        assert_eq!(HelloV1::decode(hello.encode()), Ok(hello.clone()));
        assert_eq!(hello.check_caller(&identity("n1", Some(1), Some(1)), anyone), Ok(1));
    }

    #[test]
    fn strangers_are_told_why() {
        let me = identity("n1", Some(1), Some(1));
        let other_cluster = HelloV1::of(&identity("n2", Some(2), Some(1)), Lane::Raft);
        assert_eq!(other_cluster.check_caller(&me, anyone), Err(Mismatch::Cluster { theirs: 2, ours: 1 }));
        let twin = HelloV1::of(&identity("n1", Some(1), Some(3)), Lane::Raft);
        assert_eq!(twin.check_caller(&me, anyone), Err(Mismatch::Oneself(name("n1"))));
        let mut newer = HelloV1::of(&identity("n2", Some(1), Some(2)), Lane::Raft);
        newer.protocol = (2, 3);
        assert_eq!(newer.check_caller(&me, anyone), Err(Mismatch::Protocol { theirs: (2, 3) }));
        let liar = HelloV1::of(&identity("n2", Some(1), Some(2)), Lane::Raft);
        let refused = liar.check_caller(&me, |_| Err("it is n3's".into())).expect_err("a liar");
        assert_eq!(refused.to_string(), "the peer calls itself n2, but it is n3's");
    }

    #[test]
    fn neighbouring_versions_talk_and_distant_ones_say_so() {
        // given builds that each speak their own version and the one before
        let (v1, v2, v3) = ((1, 1), (1, 2), (2, 3));
        // then neighbours talk the older one's newest, and the third does not talk to the first
        assert_eq!([common(v1, v2), common(v2, v1)], [Some(1); 2]);
        assert_eq!([common(v2, v3), common(v3, v2)], [Some(2); 2]);
        assert_eq!([common(v1, v3), common(v3, v1)], [None; 2]);
        // and a range that runs backwards is no range
        assert_eq!(common((1, 3), (3, 1)), None);
        let mut next = HelloV1::of(&identity("n2", Some(1), Some(2)), Lane::Raft);
        next.protocol = (PROTOCOL_MAX, PROTOCOL_MAX + 1);
        assert_eq!(next.check_caller(&identity("n1", Some(1), Some(1)), anyone), Ok(PROTOCOL_MAX));
        next.protocol = (PROTOCOL_MAX + 1, PROTOCOL_MAX + 2);
        let told = next.check_caller(&identity("n1", Some(1), Some(1)), anyone).expect_err("too new");
        assert!(told.to_string().contains("upgrade the older"), "{told}");
    }

    #[test]
    fn a_caller_reaches_whom_it_meant_or_nobody() {
        let me = identity("n1", Some(1), Some(1));
        let n2 = HelloV1::of(&identity("n2", Some(1), Some(2)), Lane::Raft);
        let check = |hello: &HelloV1, target: &Target| hello.check_server(&me, target, Lane::Raft, anyone);
        assert_eq!(check(&n2, &target("n2", Some(2))), Ok(1));
        assert_eq!(check(&n2, &target("n2", None)), Ok(1));
        assert_eq!(
            check(&n2, &target("n3", None)),
            Err(Mismatch::Name { found: name("n2"), wanted: name("n3") })
        );
        let wanted_9 = Mismatch::RaftId { name: name("n2"), found: Some(2), wanted: 9 };
        assert_eq!(check(&n2, &target("n2", Some(9))), Err(wanted_9));
        // and a node that lost its disk is not the one that was meant
        let empty = HelloV1::of(&identity("n2", None, None), Lane::Raft);
        let lost = Mismatch::RaftId { name: name("n2"), found: None, wanted: 2 };
        assert_eq!(check(&empty, &target("n2", Some(2))), Err(lost));
    }

    proptest::proptest! {
        #[test]
        fn the_common_protocol_is_the_newest_that_both_speak(a: (u16, u16), b: (u16, u16)) {
            let speaks = |range: (u16, u16), v: u16| range.0 <= v && v <= range.1;
            let found = common(a, b);
            proptest::prop_assert_eq!(found, common(b, a));
            match found {
                Some(v) => {
                    proptest::prop_assert!(speaks(a, v) && speaks(b, v));
                    proptest::prop_assert!(v == u16::MAX || !(speaks(a, v + 1) && speaks(b, v + 1)));
                }
                None => proptest::prop_assert!(![a.0, a.1, b.0, b.1].iter().any(|v| speaks(a, *v) && speaks(b, *v))),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120), well: bool) {
            if well && !bytes.is_empty() { bytes[0] = HELLO_VERSION; }
            let _ = HelloV1::decode(Bytes::from(bytes));
        }
    }
}
