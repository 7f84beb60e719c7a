//! Begins and ends troubles. Whatever a trouble did, its end undoes, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Town;
use crate::chance::Chance;
use crate::clock::{MS_NS, TrueNs};
use crate::event::Event;
use crate::host::HostNumber;
use crate::people::caller::Manner;
use crate::people::operator::Order;
use crate::scene::{FIRST_CALLER, NODES_MAX};
use crate::weather::{Kind, Mood, Trouble, Unsynced, Whom};

/// A cluster has 5 voters at most; one more member may wait.
const MEMBERS_MAX: usize = 5;

/// What is under way.
#[derive(Default)]
pub struct Troubles {
    under_way: Vec<(TrueNs, String, Undo)>,
    /// Troubles that keep a node from being started.
    held_down: BTreeMap<HostNumber, u32>,
    loops: BTreeMap<HostNumber, CrashLoop>,
}

/// A node that loses its power as it starts, again and again.
struct CrashLoop {
    /// So many times more.
    left: u64,
    within_ms: u64,
    unsynced: Unsynced,
    /// When it loses it next, unless its disk decides that.
    cut_at: Option<TrueNs>,
    chance: Chance,
}

/// A node that starts changes its disk more often than this.
const STARTING_OPS: u64 = 40;

impl Troubles {
    /// Whether a node must not be started.
    pub fn is_held_down(&self, number: HostNumber) -> bool {
        self.held_down.get(&number).is_some_and(|count| *count > 0)
    }
}

enum Undo {
    Nothing,
    Start(Vec<HostNumber>),
    Resume(HostNumber),
    Unblock(Vec<(HostNumber, HostNumber)>),
    Find(Vec<(HostNumber, HostNumber)>),
    SpeedUp(Vec<(HostNumber, HostNumber)>, u64),
    Widen(Vec<(HostNumber, HostNumber)>, u64),
    Empty(HostNumber),
    QuickDisk(HostNumber),
    Cheer(usize, Mood),
    Close(Arc<AtomicBool>),
    EndLoop(HostNumber),
}

impl Town {
    /// Begins a trouble, if it can befall anybody.
    pub(super) fn begin(&mut self, trouble: &Trouble) {
        let name = trouble.kind.name();
        let until = self.now + trouble.for_ms * MS_NS;
        if let Kind::RollingRestart = trouble.kind {
            return self.roll(trouble.for_ms);
        }
        let Some(undo) = self.befall(&trouble.kind, until) else {
            return self.witness.miss(trouble.to_string());
        };
        self.witness.tell(Event::Trouble(trouble.to_string()));
        self.witness.count(&format!("trouble: {name}"), 1);
        self.troubles.under_way.push((until, name.to_owned(), undo));
    }

    /// Stops every node in turn, each when the one before should be back.
    fn roll(&mut self, for_ms: u64) {
        self.witness.count("trouble: rolling-restart", 1);
        let nodes = self.operator.nodes.all();
        let share_ms = for_ms / (nodes.len() as u64).max(1);
        for (turn, number) in nodes.into_iter().enumerate() {
            let at = self.now + turn as u64 * share_ms * MS_NS;
            self.troubles.under_way.push((at, format!("roll {number}"), Undo::Nothing));
        }
    }

    fn befall(&mut self, kind: &Kind, until: TrueNs) -> Option<Undo> {
        let newcomer = |name: &str| format!("{name}-{}", until / MS_NS);
        Some(match *kind {
            Kind::Kill { whom } => {
                let number = self.standing(whom)?;
                self.kill(number);
                self.hold_down(vec![number])
            }
            Kind::PowerCut { whom, unsynced } => {
                let number = self.standing(whom)?;
                self.cut_power(number, unsynced);
                self.hold_down(vec![number])
            }
            Kind::CutCommit { whom, after_ops, unsynced } => {
                let number = self.standing(whom)?;
                self.disks[&number].cut_after(after_ops, unsynced);
                Undo::Nothing
            }
            Kind::AllPower { unsynced } => {
                let numbers = self.operator.nodes.all();
                for number in &numbers {
                    self.cut_power(*number, unsynced);
                }
                self.hold_down(numbers)
            }
            Kind::Stop { whom } => {
                let number = self.standing(whom)?;
                self.tell_to_stop(number);
                self.hold_down(vec![number])
            }
            Kind::Pause { whom } => {
                let number = self.standing(whom)?;
                self.pause(number, true);
                Undo::Resume(number)
            }
            Kind::Isolate { whom } => {
                let number = self.node(whom);
                self.block([self.to_others(number), self.of_others(number)].concat())
            }
            Kind::Deaf { whom } => self.block(self.of_others(self.node(whom))),
            Kind::Mute { whom } => self.block(self.to_others(self.node(whom))),
            Kind::Part { one, other } => self.block(both(one, other)?),
            Kind::BlackHole { one, other } => {
                let links = both(one, other)?;
                links.iter().for_each(|(from, to)| self.network.lose(*from, *to));
                Undo::Find(links)
            }
            Kind::Slow { one, other, by_ms } => {
                let links = both(one, other)?;
                links.iter().for_each(|(from, to)| self.network.slow_down(*from, *to, by_ms));
                Undo::SpeedUp(links, by_ms)
            }
            Kind::Narrow { one, other, bytes_per_s } => {
                let links = both(one, other)?;
                links.iter().for_each(|(from, to)| self.network.narrow(*from, *to, bytes_per_s));
                Undo::Widen(links, bytes_per_s)
            }
            Kind::Reset { one, other } => {
                both(one, other)?;
                self.network.reset_between(one, other);
                Undo::Nothing
            }
            Kind::CallersCutOff { whom } => {
                let number = self.node(whom);
                let callers =
                    (FIRST_CALLER..self.next_caller).flat_map(|caller| [(caller, number), (number, caller)]);
                self.block(callers.collect())
            }
            Kind::DiskFull { whom } => {
                let number = self.node(whom);
                self.disks[&number].fill(true);
                Undo::Empty(number)
            }
            Kind::DiskError { whom, after_ops } => {
                self.disks[&self.node(whom)].fail_after(after_ops);
                Undo::Nothing
            }
            Kind::SlowDisk { whom, by_ms } => {
                let number = self.node(whom);
                self.disks[&number].slow_down(by_ms);
                Undo::QuickDisk(number)
            }
            Kind::ClockRate { whom, ppm } | Kind::ClockRunaway { whom, ppm } => {
                self.hosts[&self.node(whom)].clock().set_rate(self.now, ppm);
                Undo::Nothing
            }
            Kind::WallJump { whom, by_ms } => {
                self.hosts[&self.node(whom)].clock().jump_wall(by_ms);
                Undo::Nothing
            }
            Kind::Upstream { ref name, mood } => {
                let index = self.moods.iter().position(|(held, _)| held == name)?;
                self.moods(index).push(mood);
                Undo::Cheer(index, mood)
            }
            Kind::Edition => self.order(Order::Edition),
            Kind::Join => {
                self.newcomer()?;
                Undo::Nothing
            }
            Kind::Leave { whom } => self.order(Order::Leave(self.node(whom))),
            Kind::Replace { whom } => {
                let old = self.node(whom);
                let new = self.newcomer()?;
                self.order(Order::Replace { old, new })
            }
            Kind::Wipe { whom } => {
                let number = self.standing(whom)?;
                self.cut_power(number, Unsynced::Lost);
                self.disks[&number].wipe();
                self.hold_down(vec![number])
            }
            Kind::HotKey { every_ms } => {
                // The last caller of the scene has a competitor with the same tenant.
                let tenant = self.plan.scene.callers.last()?.tenant.clone();
                Undo::Close(self.start_stranger(tenant, every_ms, Manner::Plain)?)
            }
            Kind::KeyFlood { every_ms } => {
                Undo::Close(self.start_stranger(newcomer("flood"), every_ms, Manner::Minted)?)
            }
            Kind::HangUps { every_ms } => {
                Undo::Close(self.start_stranger(newcomer("gone"), every_ms, Manner::HangsUp)?)
            }
            Kind::Dawdlers { every_ms } => {
                Undo::Close(self.start_stranger(newcomer("slow"), every_ms, Manner::Dawdles)?)
            }
            Kind::CrashLoop { whom, times, within_ms, unsynced } => {
                let number = self.standing(whom)?;
                let chance = Chance::new(self.plan.seed, &format!("crash loop until {until}"));
                let again = CrashLoop { left: times, within_ms, unsynced, cut_at: None, chance };
                self.troubles.loops.insert(number, again);
                self.cut_power(number, unsynced);
                self.start_again_after(number, super::START_AGAIN_MS);
                Undo::EndLoop(number)
            }
            Kind::RollingRestart => unreachable!("a rolling restart is begun node by node"),
        })
    }

    /// Ends what is due.
    pub(super) fn clear_due(&mut self) {
        let now = self.now;
        let (due, left) = std::mem::take(&mut self.troubles.under_way)
            .into_iter()
            .partition::<Vec<_>, _>(|(until, _, _)| *until <= now);
        self.troubles.under_way = left;
        for (_, name, undo) in due {
            if let Some(number) = name.strip_prefix("roll ").and_then(|number| number.parse().ok()) {
                self.tell_to_stop(number);
                continue;
            }
            self.undo(undo);
            self.witness.tell(Event::Cleared(name));
        }
    }

    /// Ends everything, and lets every node run.
    pub(super) fn clear_all(&mut self) {
        for (_, name, undo) in std::mem::take(&mut self.troubles.under_way) {
            self.undo(undo);
            self.witness.tell(Event::Cleared(name));
        }
        for disk in self.disks.values() {
            disk.forgive();
        }
        for number in self.operator.nodes.all() {
            self.start_again_after(number, 1);
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Nothing => {}
            Undo::Start(numbers) => {
                for number in numbers {
                    let count = self.troubles.held_down.get_mut(&number).expect("it was held down");
                    *count -= 1;
                    self.start_again_after(number, 1);
                }
            }
            Undo::Resume(number) => self.pause(number, false),
            Undo::Unblock(links) => links.iter().for_each(|(from, to)| self.network.unblock(*from, *to)),
            Undo::Find(links) => links.iter().for_each(|(from, to)| self.network.find(*from, *to)),
            Undo::SpeedUp(links, by_ms) => {
                links.iter().for_each(|(from, to)| self.network.speed_up(*from, *to, by_ms));
            }
            Undo::Widen(links, bytes_per_s) => {
                links.iter().for_each(|(from, to)| self.network.widen(*from, *to, bytes_per_s));
            }
            Undo::Empty(number) => self.disks[&number].fill(false),
            Undo::QuickDisk(number) => self.disks[&number].slow_down(0),
            Undo::Cheer(index, mood) => {
                let mut moods = self.moods(index);
                if let Some(place) = moods.iter().position(|held| *held == mood) {
                    moods.remove(place);
                }
            }
            Undo::Close(closed) => closed.store(true, Ordering::Relaxed),
            Undo::EndLoop(number) => drop(self.troubles.loops.remove(&number)),
        }
    }

    /// A node was started. If it is in a crash loop, it loses its power a while later, or in the middle of an operation.
    pub(super) fn started(&mut self, number: HostNumber) {
        let Some(again) = self.troubles.loops.get_mut(&number).filter(|it| it.left > 0) else { return };
        again.left -= 1;
        again.cut_at = None;
        if again.chance.one_in(2) {
            self.disks[&number].cut_after(again.chance.within(0..=STARTING_OPS), again.unsynced);
        } else {
            again.cut_at = Some(self.now + again.chance.within(1..=again.within_ms) * MS_NS);
        }
    }

    /// Nodes in a crash loop whose time is up lose their power.
    pub(super) fn cut_again(&mut self) {
        let now = self.now;
        let loops = self.troubles.loops.iter_mut();
        let due: Vec<(HostNumber, Unsynced)> = loops
            .filter_map(|(number, it)| it.cut_at.take_if(|at| *at <= now).map(|_| (*number, it.unsynced)))
            .collect();
        for (number, unsynced) in due {
            if !self.hosts[&number].is_up() {
                continue;
            }
            self.witness.count("power cuts soon after a start", 1);
            self.cut_power(number, unsynced);
            self.start_again_after(number, super::START_AGAIN_MS);
        }
    }

    /// The node's power was cut in the middle of an operation of its disk.
    pub(super) fn power_was_cut(&mut self, number: HostNumber) {
        let unsynced = self.disks[&number].cut_leaves();
        let starting = self.troubles.loops.contains_key(&number);
        self.witness.count("power cuts in the middle of a start", u64::from(starting));
        self.witness.count("power cuts in the middle of a commit", 1);
        self.cut_power(number, unsynced);
        self.start_again_after(number, super::START_AGAIN_MS);
    }

    /// The disk first: what a process does while it is torn down must not reach it.
    fn cut_power(&mut self, number: HostNumber, unsynced: Unsynced) {
        self.disks[&number].cut(unsynced);
        self.network.power_off(number);
        self.end_process(number);
    }

    fn kill(&mut self, number: HostNumber) {
        self.disks[&number].let_go();
        self.end_process(number);
    }

    fn end_process(&mut self, number: HostNumber) {
        let host = self.hosts.get_mut(&number).expect("a node's host");
        if host.is_up() {
            host.kill();
            self.witness.tell(Event::Down { host: number });
        }
    }

    fn pause(&mut self, number: HostNumber, paused: bool) {
        let host = self.hosts.get_mut(&number).expect("a node's host");
        host.pause(paused);
        if host.is_up() {
            self.witness.tell(Event::Paused { host: number, paused });
        }
    }

    pub(super) fn tell_to_stop(&mut self, number: HostNumber) {
        if let Some(stop) = self.stops.remove(&number) {
            // A process that has ended does not hear it.
            let _ = stop.send(());
        }
    }

    fn hold_down(&mut self, numbers: Vec<HostNumber>) -> Undo {
        for number in &numbers {
            *self.troubles.held_down.entry(*number).or_default() += 1;
        }
        Undo::Start(numbers)
    }

    fn order(&self, order: Order) -> Undo {
        self.operator.orders.lock().expect("no panic happens while orders are locked").push_back(order);
        Undo::Nothing
    }

    /// Starts a node that never was, if there is room for one more member.
    fn newcomer(&mut self) -> Option<HostNumber> {
        let number = (1..=NODES_MAX).find(|number| self.hosts[number].lives() == 0)?;
        if self.operator.nodes.all().len() >= MEMBERS_MAX {
            return None;
        }
        self.operator.nodes.add(number);
        self.start_node(number);
        Some(number)
    }

    fn block(&self, links: Vec<(HostNumber, HostNumber)>) -> Undo {
        links.iter().for_each(|(from, to)| self.network.block(*from, *to));
        Undo::Unblock(links)
    }

    fn node(&self, whom: Whom) -> HostNumber {
        let nodes = self.operator.nodes.all();
        let after = |number: HostNumber| nodes.iter().find(|node| **node > number).unwrap_or(&nodes[0]);
        match whom {
            Whom::Node(number) => self.operator.nodes.named(number),
            Whom::Leader => self.witness.leader(),
            Whom::Follower => *after(self.witness.leader()),
            Whom::Holder => self.witness.holder(),
        }
    }

    /// The node, if a process runs there.
    fn standing(&self, whom: Whom) -> Option<HostNumber> {
        Some(self.node(whom)).filter(|number| self.hosts[number].is_up())
    }

    fn to_others(&self, number: HostNumber) -> Vec<(HostNumber, HostNumber)> {
        let others = self.operator.nodes.all().into_iter().filter(|other| *other != number);
        others.map(|other| (number, other)).collect()
    }

    fn of_others(&self, number: HostNumber) -> Vec<(HostNumber, HostNumber)> {
        self.to_others(number).into_iter().map(|(from, to)| (to, from)).collect()
    }

    fn moods(&self, index: usize) -> std::sync::MutexGuard<'_, Vec<Mood>> {
        self.moods[index].1.lock().expect("no panic happens while moods are locked")
    }
}

/// Both directions between two nodes; none if they are one.
fn both(one: HostNumber, other: HostNumber) -> Option<Vec<(HostNumber, HostNumber)>> {
    (one != other).then(|| vec![(one, other), (other, one)])
}
