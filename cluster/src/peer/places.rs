//! How many connections the door has: those being greeted, and those of each node. Pure but for a lock.
//!
//! Strangers can fill the places of greeting at any time, so the newest comer takes the place of the one that has been
//! greeting longest: a node greets within milliseconds, whoever says nothing only waits. What a node holds is
//! bounded for each node and lane, so that no node, and nobody with its certificate, takes the places of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::ids::NodeName;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Lane;

/// Connections that are being greeted at once.
pub const GREETING_MAX: usize = 256;
/// Greeted connections at once: five lanes from each of many nodes.
pub const CONNECTIONS_MAX: usize = 512;
/// Connections of one node on one lane: one, another while it is made anew, and those that a cut network left behind.
pub const LANE_CONNECTIONS_MAX: usize = 8;

/// All places of one door. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    /// By age; a place is lost when its sender goes.
    greeting: BTreeMap<u64, oneshot::Sender<()>>,
    next: u64,
    seated: BTreeMap<(NodeName, Lane), usize>,
}

/// A place of a connection that is being greeted; given back when dropped.
#[derive(Debug)]
pub(super) struct Greeting {
    places: Places,
    number: u64,
    lost: oneshot::Receiver<()>,
}

/// A node's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    places: Places,
    key: (NodeName, Lane),
}

/// Why a node has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("node {0} has {LANE_CONNECTIONS_MAX} connections on lane {1:?} already")]
    Lane(NodeName, Lane),
    #[error("this node has {CONNECTIONS_MAX} connections of peers already")]
    Door,
}

impl Places {
    /// A place for a newcomer. If all are taken, the oldest is lost.
    pub(super) fn greet(&self) -> Greeting {
        let (keep, lost) = oneshot::channel();
        let mut taken = self.0.lock();
        while taken.greeting.len() >= GREETING_MAX {
            taken.greeting.pop_first();
        }
        let number = taken.next;
        taken.next += 1;
        taken.greeting.insert(number, keep);
        Greeting { places: self.clone(), number, lost }
    }

    /// A place for a node.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn seat(&self, node: &NodeName, lane: Lane) -> Result<Seat, Full> {
        let mut taken = self.0.lock();
        if taken.seated.values().sum::<usize>() >= CONNECTIONS_MAX {
            return Err(Full::Door);
        }
        let key = (node.clone(), lane);
        let held = taken.seated.entry(key.clone()).or_default();
        if *held >= LANE_CONNECTIONS_MAX {
            return Err(Full::Lane(node.clone(), lane));
        }
        *held += 1;
        Ok(Seat { places: self.clone(), key })
    }
}

impl Greeting {
    /// Yields when a newcomer has taken the place.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent: the sender's end is the message.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        self.places.0.lock().greeting.remove(&self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        let held = taken.seated.get_mut(&self.key).expect("a seat is counted until it is dropped");
        *held -= 1;
        if *held == 0 {
            taken.seated.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("valid")
    }

    #[test]
    fn a_newcomer_takes_the_place_of_whoever_greets_longest() {
        // given a door where every place of greeting is taken, and one was given back in between
        let places = Places::default();
        let mut greeting: Vec<Greeting> = (0..GREETING_MAX).map(|_| places.greet()).collect();
        drop(greeting.remove(1));
        greeting.push(places.greet());
        let lost = |one: &mut Greeting| one.lost().now_or_never().is_some();
        assert!(!greeting.iter_mut().any(lost));
        // when one more comes, then the oldest alone is lost
        let mut newcomer = places.greet();
        assert_eq!(greeting.iter_mut().map(lost).collect::<Vec<_>>(), {
            let mut oldest = vec![false; GREETING_MAX];
            oldest[0] = true;
            oldest
        });
        assert!(!lost(&mut newcomer));
        // and all is given back
        drop((greeting, newcomer));
        assert!(places.0.lock().greeting.is_empty());
    }

    #[test]
    fn a_node_takes_only_its_own_places() {
        // given a node with as many connections on a lane as it may have
        let places = Places::default();
        let seat = |node: &str, lane| places.seat(&name(node), lane);
        let mut seats: Vec<Seat> =
            (0..LANE_CONNECTIONS_MAX).map(|_| seat("n1", Lane::Raft).expect("a place")).collect();
        // then it gets no more there, but on another lane, and so does another node
        assert_eq!(seat("n1", Lane::Raft).expect_err("full"), Full::Lane(name("n1"), Lane::Raft));
        seat("n1", Lane::Quota).expect("a place");
        seat("n2", Lane::Raft).expect("a place");
        // and again when one is given back
        seats.pop();
        seats.push(seat("n1", Lane::Raft).expect("a place"));
        // and the door has an end
        let others = (0..CONNECTIONS_MAX - LANE_CONNECTIONS_MAX).map(|n| seat(&format!("m{n}"), Lane::Raft));
        seats.extend(others.map(|seat| seat.expect("a place")));
        assert_eq!(seat("n2", Lane::Raft).expect_err("full"), Full::Door);
        drop(seats);
        assert!(places.0.lock().seated.is_empty());
    }
}
